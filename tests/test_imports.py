"""Imports flow one way, files are short, and the core needs the core dependencies only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "aunet"
OPTIONAL = ["datasets", "pyarrow", "zstandard", "wandb", "tensorboard", "transformers", "tokenizers", "pandas", "scipy"]
OPTIONAL += ["fastapi", "starlette", "uvicorn", "prometheus_client", "ray", "optuna", "sqlalchemy", "matplotlib"]
OPTIONAL += ["lm_eval", "sacrebleu", "s3fs"]
NOTHING_WITHOUT = {"hf", "serve", "evals.harness", "evals.harness_tasks"}
"""Parts that are an extra altogether: whoever imports one without its packages is told so in one line."""

BASE = {"errors", "bytes", "files", "config", "mappings", "compiler", "magnitudes", "paper_laws", "process"}
"""What needs nothing but itself."""
LAYERS = {
    "errors": set(),
    "bytes": BASE,
    "files": BASE,
    "config": BASE,
    "mappings": BASE,
    "compiler": BASE,
    "paper_laws": BASE,
    "magnitudes": BASE,
    "process": BASE,
    "vocabulary": BASE,
    "presets": BASE | {"splitting", "vocabulary"},
    "splitting": BASE,
    "data": BASE | {"splitting", "vocabulary"},
    "model": BASE,
    "train": BASE | {"splitting", "vocabulary", "data", "model"},
    "planning": BASE | {"splitting", "vocabulary", "data", "model", "train"},
    "infer": BASE | {"splitting", "vocabulary", "data", "model"},
    "language_model": BASE | {"splitting", "vocabulary", "data", "model", "infer", "evals"},
    "evals": BASE | {"splitting", "vocabulary", "data", "model", "infer", "language_model"},
    "tokenizer": BASE | {"splitting", "vocabulary", "data"},
    "scaling": BASE | {"splitting", "vocabulary", "data", "model", "train", "infer", "evals", "presets", "report"},
}
"""What a part of the package may import; parts that are not named are the top: the command line and what it shows."""


def _modules() -> dict[str, Path]:
    """Every module by its dotted name below `aunet`; the package itself is ''."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names below `aunet` that are imported anywhere in a tree, whole modules or a module's members."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("aunet.") for alias in node.names if alias.name.startswith("aunet."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            name = node.module or ""
            if name == "aunet" or name.startswith("aunet."):
                below = name.removeprefix("aunet").removeprefix(".")
                for alias in node.names:
                    inner = f"{below}.{alias.name}".removeprefix(".")
                    yield inner if inner in MODULES else below


def _part(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", [module for module in MODULES if _part(module) in LAYERS])
def test_imports_flow_one_way(module: str) -> None:
    part = _part(module)
    for imported in _imports(ast.parse(MODULES[module].read_text())):
        # `aunet` itself holds the version, which anybody may read.
        assert not imported or _part(imported) in LAYERS[part] | {part}, f"{module} imports {imported}"


def test_no_file_is_longer_than_400_lines() -> None:
    kinds = {".py", ".cpp", ".h", ".js", ".css", ".html"}
    lengths = {path: path.read_text().count("\n") for path in SOURCE.rglob("*") if path.suffix in kinds}
    assert len(lengths) > len(MODULES)
    assert {path.relative_to(SOURCE).as_posix(): n for path, n in lengths.items() if n > 400} == {}


def test_no_module_imports_itself_through_others() -> None:
    """Only what is imported when a module is imported counts: a function may import late to break a cycle."""
    graph = {}
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text())
        late = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        for function in late:
            function.body = []
        graph[module] = {name for name in _imports(tree) if name and name != module}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"cycle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in done:
            for imported in graph.get(module, ()):
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_core_imports_without_optional_packages() -> None:
    """In a process in which they are not to be found."""
    modules = [f"aunet.{name}" if name else "aunet" for name in MODULES if name != "__main__"]
    extras = [name for name in modules if any(f"{name}.".startswith(f"aunet.{part}.") for part in NOTHING_WITHOUT)]
    program = f"""
import importlib
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def hide(name, path=None, target=None):
    return None if name.split(".")[0] in {OPTIONAL} else find(name, path, target)
PathFinder.find_spec = staticmethod(hide)
from aunet.errors import MissingExtra
for name in {modules}:
    try:
        importlib.import_module(name)
        assert name not in {extras}, name
    except MissingExtra as error:
        assert name in {extras}, name
        assert len(str(error).splitlines()) == 1
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_is_light() -> None:
    """`import aunet` asks for no optional package and changes no random state, default type or thread count."""
    program = f"""
import sys, torch
before = (torch.initial_seed(), torch.get_default_dtype(), torch.get_num_threads())
import aunet
assert before == (torch.initial_seed(), torch.get_default_dtype(), torch.get_num_threads())
assert not {set(OPTIONAL)!r} & set(sys.modules), sorted({set(OPTIONAL)!r} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
