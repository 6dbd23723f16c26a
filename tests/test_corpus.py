import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aunet import corpus
from aunet.errors import AUNetError


@pytest.fixture(scope="module")
def real() -> corpus.Corpus:
    return corpus.gather()


def _library(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def _prose(word: str, paragraphs: int = 12) -> str:
    """Paragraphs that no other word shares."""
    return "\n\n".join(" ".join(f"{word}{i}x{k}" for k in range(12)) for i in range(paragraphs))


def _modules(count: int) -> dict[str, str]:
    return {f"m{i}.py": f'"""{_prose(f"w{i}")} \\ud800"""' for i in range(count)}


def test_the_size_is_what_a_demo_needs(real: corpus.Corpus) -> None:
    assert 1_000_000 < real.train_bytes < 6_000_000
    assert 30_000 < real.valid_bytes < 300_000
    assert len(real.valid) >= 10


def test_two_calls_agree(real: corpus.Corpus) -> None:
    again = corpus.gather()
    assert again == real
    assert again.sha256 == real.sha256


def test_the_hash_covers_text_name_and_part() -> None:
    base = corpus.Corpus([("a", "x")], [("b", "y")])
    others = [
        corpus.Corpus([("a", "z")], [("b", "y")]),
        corpus.Corpus([("c", "x")], [("b", "y")]),
        corpus.Corpus([("a", "x"), ("b", "y")], []),
    ]
    assert len({one.sha256 for one in [base, *others]}) == 4


def test_no_document_and_no_paragraph_is_in_both_parts(real: corpus.Corpus) -> None:
    assert not {name for name, _ in real.train} & {name for name, _ in real.valid}
    seen = {" ".join(part.split()) for _, text in real.train for part in text.split("\n\n")}
    held_out = [" ".join(part.split()) for _, text in real.valid for part in text.split("\n\n")]
    assert held_out
    assert not seen & set(held_out)


def test_documents_are_long_enough_distinct_and_valid(real: corpus.Corpus) -> None:
    documents = [*real.train, *real.valid]
    assert len({name for name, _ in documents}) == len(documents)
    for name, text in documents:
        assert len(text.encode()) >= corpus.SMALLEST, name
        assert text == text.strip("\n"), name
        assert "\n\n\n" not in text, name


def test_tests_and_tables_are_left_out(real: corpus.Corpus) -> None:
    names = [name for name, _ in [*real.train, *real.valid]]
    assert not [name for name in names if corpus.SKIPPED & set(name.split("/")[1:-1])]
    assert "lib/argparse" in names
    assert "lib/json/decoder" in names


def test_every_docstring_of_a_module_is_there_in_order(tmp_path: Path) -> None:
    source = f'''"""Module {_prose("m")}"""
class A:
    """Class A."""
    def method(self):
        """Method."""
        def inner():
            """Inner."""
if True:
    async def later():
        """Later.

            indented
        end
        """
x = """not a docstring"""
'''
    ((name, text),) = corpus.docstrings(_library(tmp_path, {"pkg/mod.py": source}))
    assert name == "lib/pkg/mod"
    assert text.split("\n\n")[-5:] == ["Class A.", "Method.", "Inner.", "Later.", "    indented\nend"]
    assert "not a docstring" not in text


def test_files_that_do_not_parse_are_passed_over(tmp_path: Path) -> None:
    root = _library(tmp_path, {"old.py": "print 'x'", "good.py": f'"""{_prose("good")}"""', "null.py": "\0"})
    (root / "binary.py").write_bytes(b"\xff\xfe\x00")
    (root / "folder.py").mkdir()
    assert [name for name, _ in corpus.docstrings(root)] == ["lib/good"]


def test_nothing_is_imported(tmp_path: Path) -> None:
    root = _library(tmp_path, {"bad.py": f'"""{_prose("bad")}"""\nraise SystemExit("imported")\n'})
    assert len(list(corpus.docstrings(root))) == 1


def test_a_lone_surrogate_in_a_docstring_does_not_break_writing(tmp_path: Path) -> None:
    train, valid = corpus.gather(_library(tmp_path / "lib", _modules(150))).write(tmp_path / "out")
    assert "w0" in train.read_text(encoding="utf-8")
    assert valid.stat().st_size


def test_without_topics_the_docstrings_are_enough(tmp_path: Path) -> None:
    found = corpus.gather(_library(tmp_path, _modules(150)))
    assert len(found.train) + len(found.valid) == 150
    assert {name.split("/")[0] for name, _ in found.train} == {"lib"}


def test_topics_are_read_whatever_else_the_file_holds(tmp_path: Path) -> None:
    text = "# a comment\nother = {f(): 1}\ntopics = {'b': '  second\\n', 'a': 'first'}\n"
    root = _library(tmp_path, {"pydoc_data/topics.py": text})
    assert list(corpus.topics(root)) == [("topics/a", "first"), ("topics/b", "second")]


def test_a_python_without_sources_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AUNetError, match="carries no sources"):
        corpus.gather(tmp_path)


def test_files_hold_the_documents(real: corpus.Corpus, tmp_path: Path) -> None:
    paths = real.write(tmp_path / "new" / "text")
    for path, documents in zip(paths, (real.train, real.valid), strict=True):
        lines = [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]
        assert [(line["id"], line["text"]) for line in lines] == documents


def test_a_directory_that_cannot_be_written_is_one_line(real: corpus.Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AUNetError, match="cannot be written"):
        real.write(tmp_path / "file")


def test_copied_and_nearly_copied_paragraphs_are_dropped() -> None:
    shared = "Return the next item from the queue, waiting for at most the given number of seconds for one."
    near = shared.replace("queue", "stack") + " Raise Empty."
    fresh = "Nothing like this paragraph stands in the other part, so that it is kept as it was written here."
    known = [("a", f"Intro.\n\n{shared}")]
    kept = dict(corpus.unseen([("b", f"{shared}\n\n{near}\n\n{fresh}\n\nIntro.")], known))
    # The eleven words after the changed one are still those of the original: more than half of the twenty.
    assert kept == {"b": fresh}


@given(st.lists(st.tuples(st.uuids().map(str), st.integers(1, 5000)), unique_by=lambda pair: pair[0]))
def test_held_out_takes_a_share_without_a_giant(pairs: list[tuple[str, int]]) -> None:
    documents = [(name, "x" * size) for name, size in pairs]
    names = corpus.held_out(documents)
    sizes = dict(pairs)
    total, largest = sum(sizes.values()), max([corpus.SMALLEST, corpus.LARGEST * corpus.HELD_OUT * sum(sizes.values())])
    assert all(sizes[name] <= largest for name in names)
    assert sum(sizes[name] for name in names) < corpus.HELD_OUT * total + largest
    assert names == corpus.held_out(documents[::-1])


def test_every_python_here_gathers_with_nothing_installed() -> None:
    """Needs the standard library only: `-S` hides installed packages."""
    program = "from aunet import corpus; c = corpus.gather(); print([len(c.train), c.train_bytes, c.valid_bytes])"
    environment = {**os.environ, "PYTHONPATH": str(Path(corpus.__file__).parents[1])}
    for python in [sys.executable, *filter(_runs, ("python3.12", "python3.13"))]:
        command = [python, "-S", "-c", program]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        documents, train_bytes, valid_bytes = ast.literal_eval(result.stdout)
        assert documents > 200, python
        assert train_bytes > 1_000_000, python
        assert valid_bytes > 30_000, python


def _runs(python: str) -> bool:
    """Whether an interpreter is here and is more than a placeholder."""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
