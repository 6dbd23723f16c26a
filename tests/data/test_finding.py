"""Files that a path, a glob or a directory stands for."""

import os
import tempfile
from pathlib import Path

import pytest
from corpora import error_of, read, write

from aunet.data import Problems
from aunet.data.sources import find_files
from aunet.errors import AUNetError

KNOWN = ".txt, .jsonl, .jsonl.gz, .jsonl.zst, .parquet"


def test_directories_are_walked_in_order(tmp_path):
    for i, name in enumerate(["b/c.txt", "a.txt", "b/a/z.jsonl", "b/b.parquet"]):
        write(tmp_path / name, [str(i)])
    (tmp_path / ".hidden").mkdir()
    write(tmp_path / ".hidden" / "x.txt", ["no"])
    write(tmp_path / ".x.txt", ["no"])
    (tmp_path / "README.md").write_text("no")
    problems = Problems()
    assert read(tmp_path, problems) == [b"1", b"2", b"3", b"0"]
    assert problems.lines() == [
        f"skipped 1 x unknown kind of file, first {tmp_path}/README.md: unknown kind of file; known: {KNOWN}"
    ]


def test_a_link_to_a_directory_is_told(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write(tmp_path / "b" / "x.txt", ["b"])
    (tmp_path / "a" / "more").symlink_to(tmp_path / "b")
    assert error_of(tmp_path / "a").endswith("; link to a directory is not followed")
    write(tmp_path / "a" / "y.txt", ["a"])
    problems = Problems()
    assert read(tmp_path / "a", problems) == [b"a"]
    (line,) = problems.lines()
    assert f"{tmp_path / 'a' / 'more'}: leads to {tmp_path / 'b'}" in line


def test_globs(tmp_path):
    for name in ["x/1.txt", "x/y/2.txt", "x/y/3.jsonl", "4.txt"]:
        write(tmp_path / name, [name])
    assert read(tmp_path / "*.txt") == [b"4.txt"]
    assert read(tmp_path / "**" / "*.txt") == [b"4.txt", b"x/1.txt", b"x/y/2.txt"]
    assert read(tmp_path / "x" / "y" / "[23].*") == [b"x/y/2.txt", b"x/y/3.jsonl"]


@pytest.mark.parametrize("pattern", [".", "*"])
def test_pipes_and_links_that_lead_nowhere_are_counted(tmp_path, pattern):
    write(tmp_path / "a.txt", ["text"])
    os.mkfifo(tmp_path / "b.txt")
    (tmp_path / "c.txt").symlink_to("nowhere")
    (tmp_path / "d").mkdir()
    problems = Problems()
    assert read(tmp_path / pattern, problems) == [b"text"]
    assert problems.lines() == [
        f"skipped 2 x not a file, first {tmp_path}/b.txt: neither a file nor a directory",
    ]
    assert error_of(tmp_path / "b.txt") == f"{tmp_path}/b.txt: neither a file nor a directory"
    (tmp_path / "b.txt").unlink()
    (tmp_path / "a.txt").unlink()
    problems = Problems()
    with pytest.raises(AUNetError):
        read(tmp_path / pattern, problems)
    with pytest.raises(AUNetError):
        find_files(str(tmp_path / pattern), problems)
    assert problems.first == {"not a file": f"{tmp_path}/c.txt: leads to nowhere, which is not there"}


@pytest.mark.parametrize("pattern", ["**/*.txt", "*/*.txt"])
def test_what_several_links_lead_to_is_read_once(tmp_path, pattern):
    write(tmp_path / "a" / "x.txt", ["text"])
    (tmp_path / "a" / "y.txt").symlink_to("x.txt")
    (tmp_path / "b").symlink_to("a")
    problems = Problems()
    assert read(tmp_path / pattern, problems) == [b"text"]
    first = f"first {tmp_path}/a/y.txt: is {tmp_path}/a/x.txt, which is read once"
    assert problems.lines() == [f"skipped 3 x repeated file, {first}"]
    (tmp_path / "a" / "itself").symlink_to(".")
    assert read(tmp_path / pattern) == [b"text"]


def test_a_name_that_looks_like_a_glob(tmp_path):
    assert read(write(tmp_path / "a[1].txt", ["text"])) == [b"text"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.txt", "{}: no such file or directory"),
        ("*.txt", f"{{}}: matches no file of a known kind ({KNOWN})"),
        ("empty", f"{{}}: holds no file of a known kind ({KNOWN})"),
        ("notes.md", f"{{}}: unknown kind of file; known: {KNOWN}, hf:NAME"),
    ],
)
def test_paths_that_mean_nothing(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("text")
    assert error_of(tmp_path / name) == message.format(tmp_path / name)


def test_paths_that_cannot_be_looked_at_are_one_line():
    assert "File name too long" in error_of("a" * 5000)
    assert error_of("").startswith("the path of a source is empty; ")
    assert error_of("~nobody-of-this-name/a.txt").startswith("~nobody-of-this-name/a.txt: ")


def test_a_file_without_permission():
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path, other users may be let in
        directory = Path(name)
        directory.chmod(0o755)
        path = write(directory / "a.txt", ["text"])
        path.chmod(0)
        root = os.geteuid() == 0
        if root:  # who may read everything
            os.seteuid(65534)
        try:
            assert error_of(path) == f"{path}: Permission denied"
        finally:
            if root:
                os.seteuid(0)


def test_files_are_sorted(tmp_path):
    for name in ["10.txt", "9.txt", "a/1.txt"]:
        write(tmp_path / name, ["x"])
    assert find_files(str(tmp_path), Problems()) == [str(tmp_path / name) for name in ["10.txt", "9.txt", "a/1.txt"]]
