"""The demo's text: English prose that every Python installation carries, about 2 MB, so that nothing is downloaded.

One document per topic of the language reference (`pydoc_data.topics`) and one per module of the standard library (its
docstrings in source order). Files are parsed, never imported, and read in sorted order, so one Python version always
gives the same text and the same held-out part of it.
"""

import ast
import hashlib
import inspect
import json
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aunet.errors import AUNetError
from aunet.files import replacing

Document = tuple[str, str]
"""Name and text."""

SKIPPED = frozenset(
    {"__pycache__", "dist-packages", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages"}
    | {"test", "tests", "turtledemo"}
)
"""Directories of tests, tables, demonstrations and of what is not the standard library."""
SMALLEST = 200
"""Bytes of a document; shorter ones are left out."""
HELD_OUT = 0.05
"""Share of the text that is held out."""
LARGEST = 0.2
"""Share of the held-out text that one document may have, so that none decides what is measured on it."""
SEQUENCE = 8
"""Words in a row that count as a repetition."""


@dataclass(frozen=True)
class Corpus:
    """Documents as (name, text). None is in both parts, and no paragraph of `valid` stands in `train`."""

    train: list[Document]
    valid: list[Document]

    @property
    def sha256(self) -> str:
        """Of all names and texts: two corpora with the same value have the same content."""
        return hashlib.sha256(json.dumps([self.train, self.valid], ensure_ascii=True).encode()).hexdigest()

    @property
    def train_bytes(self) -> int:
        """Bytes of the training texts in UTF-8."""
        return sum(len(text.encode()) for _, text in self.train)

    @property
    def valid_bytes(self) -> int:
        """Bytes of the held-out texts in UTF-8."""
        return sum(len(text.encode()) for _, text in self.valid)

    def write(self, directory: Path) -> tuple[Path, Path]:
        """Write `train.jsonl` and `valid.jsonl`, one `{"id", "text"}` per line; returns their paths."""
        paths = directory / "train.jsonl", directory / "valid.jsonl"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for path, documents in zip(paths, (self.train, self.valid), strict=True):
                lines = (json.dumps({"id": name, "text": text}, ensure_ascii=False) for name, text in documents)
                with replacing(path) as partial:
                    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
        except OSError as error:
            raise AUNetError(f"{directory}: the demo's text cannot be written ({error.strerror})") from None
        return paths


def gather(stdlib: Path | None = None) -> Corpus:
    """Read the documents of this Python's standard library (or of the one at `stdlib`) and split them.

    Raises AUNetError where an installation was stripped of its sources or docstrings.
    """
    root = stdlib or Path(sysconfig.get_path("stdlib"))
    documents = [document for document in [*topics(root), *docstrings(root)] if _long(document)]
    names = held_out(documents)
    train = [document for document in documents if document[0] not in names]
    valid = [document for document in documents if document[0] in names]
    # What lost most of its paragraphs is no text any more: headings without their sections.
    rests = zip(valid, unseen(valid, train), strict=True)
    valid = [rest for whole, rest in rests if _long(rest) and 2 * len(rest[1]) >= len(whole[1])]
    if not train or not valid:
        raise AUNetError(f"{root}: this Python carries no sources with docstrings; the demo needs an ordinary CPython")
    return Corpus(train, valid)


def write(directory: Path) -> tuple[Path, Path]:
    """Gather the documents and write them; returns the paths of `train.jsonl` and `valid.jsonl`."""
    return gather().write(directory)


def held_out(documents: Iterable[Document]) -> set[str]:
    """Names of the held-out documents: in the order of a hash of their names, as many as make up `HELD_OUT` in bytes.

    >>> documents = [(f"lib/{i}", "text") for i in range(40)]
    >>> sorted(held_out(documents)), sorted(held_out(documents[::-1]))
    (['lib/10', 'lib/27'], ['lib/10', 'lib/27'])
    """
    sizes = {name: len(text.encode()) for name, text in documents}
    wanted = HELD_OUT * sum(sizes.values())
    names: set[str] = set()
    for name in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if wanted > 0 and sizes[name] <= max(LARGEST * HELD_OUT * sum(sizes.values()), SMALLEST):
            names.add(name)
            wanted -= sizes[name]
    return names


def topics(root: Path) -> Iterator[Document]:
    """The topics of the language reference, by name; none where this Python lacks them."""
    tree = _parse(root / "pydoc_data" / "topics.py")
    for statement in tree.body if tree else []:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            try:
                found = ast.literal_eval(statement.value)
            except ValueError:
                continue
            for name, text in sorted(found.items()):
                yield f"topics/{name}", _clean(text)


def docstrings(root: Path) -> Iterator[Document]:
    """The docstrings of every module of the library, in the order of their paths; other files are passed over."""
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).parts):
        parts = path.relative_to(root).with_suffix("").parts
        tree = None if SKIPPED & set(parts[:-1]) else _parse(path)
        texts = list(_docstrings(tree)) if tree else []
        if texts:
            yield "lib/" + "/".join(parts), "\n\n".join(texts)


def unseen(documents: Iterable[Document], known: Iterable[Document]) -> Iterator[Document]:
    """The documents without the paragraphs that stand in `known`, whole or for the most part.

    The library repeats itself: a subclass copies its parent's docstring, a topic holds another. A held-out paragraph
    is dropped if it occurs there as it is, or if half of its words stand in sequences of eight words that do.
    """
    paragraphs: set[tuple[str, ...]] = set()
    sequences: set[tuple[str, ...]] = set()
    for _, text in known:
        for words in map(_words, _paragraphs(text)):
            paragraphs.add(words)
            sequences.update(words[i : i + SEQUENCE] for i in range(len(words) - SEQUENCE + 1))
    for name, text in documents:
        kept = []
        for paragraph in _paragraphs(text):
            words = _words(paragraph)
            starts = [i for i in range(len(words) - SEQUENCE + 1) if words[i : i + SEQUENCE] in sequences]
            repeated = {i + k for i in starts for k in range(SEQUENCE)}
            if words not in paragraphs and 2 * len(repeated) < len(words):
                kept.append(paragraph)
        yield name, "\n\n".join(kept)


def _paragraphs(text: str) -> list[str]:
    return [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]


def _words(paragraph: str) -> tuple[str, ...]:
    return tuple(paragraph.split())


def _docstrings(node: ast.AST) -> Iterator[str]:
    """Of a module and of the classes and functions in it, in source order, cleaned of their indentation."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = _clean(ast.get_docstring(node, clean=False) or "")
        if text:
            yield text
    elif isinstance(node, ast.expr):
        return
    for child in ast.iter_child_nodes(node):
        yield from _docstrings(child)


def _clean(text: str) -> str:
    """Without indentation and trailing spaces, paragraphs set off by one empty line, and valid UTF-8."""
    lines = [line.rstrip() for line in inspect.cleandoc(text).encode(errors="replace").decode().splitlines()]
    return "\n\n".join(part.strip("\n") for part in "\n".join(lines).split("\n\n") if part.strip())


def _long(document: Document) -> bool:
    return len(document[1].encode()) >= SMALLEST


def _parse(path: Path) -> ast.Module | None:
    """The syntax tree of a file, or None where there is none for this Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in docstrings are not ours to report
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
