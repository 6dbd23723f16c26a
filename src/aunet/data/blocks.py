"""Blocks: what one lane reads in one go, and what all formats share.

A block is a byte range of a plain file, a row group of a parquet file, a whole compressed file, a shard of a Hugging
Face dataset. `read(block, position, ...)` yields `(after, document)`: the document as bytes, and the position from
which reading goes on after it. A position is 0 for the start of the block, otherwise what the format can find again:
a byte offset, or a number of lines or rows.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from aunet.bytes import to_bytes
from aunet.data.problems import Problems
from aunet.errors import AUNetError

MIB = 1 << 20
LONGEST_NAME = 60
"""Characters of a key or column that a problem shows; it may be anything, and goes to a terminal."""


class Block(NamedTuple):
    """A part of a source that is read in one go; `start` and `stop` are bytes, row groups or shards."""

    format: str
    path: str
    start: int
    stop: int
    size: float
    """Uncompressed bytes, exact or estimated; only the shares and the balance of lanes depend on it. See `held`."""
    file_size: int


Document = tuple[int, bytes]


class Format(ABC):
    """One kind of file."""

    @abstractmethod
    def blocks(self, path: str, size: int, block_bytes: int, field: str, problems: Problems) -> list[Block]:
        """Cut a file of `size` bytes into blocks of about `block_bytes`; [] and a problem where it can't be used."""

    def expansion(self, paths: Sequence[str], field: str) -> float:
        """Uncompressed bytes per byte that `blocks` states, estimated from the beginnings of some of the files."""
        return 1.0

    def held(self, block: Block) -> float:
        """Uncompressed bytes that reading a block gives."""
        return block.size

    @abstractmethod
    def read(self, block: Block, position: int, field: str, problems: Problems) -> Iterator[Document]:
        """Documents of a block from a position on, with the position after each."""


def document_of_line(line: bytes, field: str, problems: Problems, where: str | Callable[[], str]) -> bytes | None:
    """Text of a JSON line; None where there is none, which is counted (blank lines are not)."""
    line = line.rstrip(b"\r\n")
    if not line or line.isspace():
        return None
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        what = f"not valid JSON ({error.msg}: column {error.colno}), expected one object per line"
        problems.add("malformed JSON", where, what)
    except UnicodeDecodeError:
        problems.add("malformed JSON", where, "not UTF-8")
    except (ValueError, RecursionError) as error:  # digits or nesting beyond Python's limits
        problems.add("malformed JSON", where, one_line(error))
    else:
        if isinstance(row, dict):
            return document_of_row(row, field, problems, where, "line")
        what = f"a JSON {type(row).__name__}, expected an object with the key {field!r}"
        problems.add("not an object", where, what)
    return None


def document_of_row(
    row: Mapping[str, Any], field: str, problems: Problems, where: str | Callable[[], str], noun: str
) -> bytes | None:
    """The text field of a row as bytes."""
    if field not in row:
        problems.add("no text field", where, no_field(field, list(row), noun, "keys"))
        return None
    return document_of_value(row[field], field, problems, where)


def document_of_value(value: object, field: str, problems: Problems, where: str | Callable[[], str]) -> bytes | None:
    """A text, or bytes, as bytes."""
    if not isinstance(value, str | bytes):
        kind = "null" if value is None else type(value).__name__
        problems.add("text is not a string", where, f"{field!r} is {kind}, expected a string")
        return None
    if not value:
        problems.add("empty document", where, f"{field!r} is empty")
    return to_bytes(value) or None


@contextmanager
def open_file(path: str, buffering: int = MIB) -> Iterator[IO[bytes]]:
    """Open for reading; AUNetError that names the file where that fails, or its disk while it is open."""
    try:
        with Path(path).open("rb", buffering=buffering) as file:
            yield file
    except OSError as error:
        raise AUNetError(f"{path}: {error.strerror or one_line(error)}") from None


@contextmanager
def open_unchanged(block: Block) -> Iterator[IO[bytes]]:
    """The open file of a block; AUNetError if its size, before or after, is not that for which the blocks were made."""
    with open_file(block.path) as file:
        _check_size(file, block)
        yield file
        # A file that was cut off meanwhile looks as if it just ended, or as if it had been damaged all along.
        _check_size(file, block)


def _check_size(file: IO[bytes], block: Block) -> None:
    size = os.fstat(file.fileno()).st_size
    if size != block.file_size:
        raise AUNetError(
            f"{block.path}: changed while it was being read: had {block.file_size} bytes, has {size}; put it back and "
            "run the same command again"
        )


def no_field(field: str, names: list[str], noun: str, plural: str) -> str:
    """What is wrong where the text field is missing, with what is there and the mend."""
    cut = (name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..." for name in names[:12])
    shown = ", ".join(map(repr, cut)) + (", ..." if len(names) > 12 else "")
    return f"text_field is {field!r}, the {noun} has the {plural}: {shown or 'none'}; set text_field"


def one_line(value: object) -> str:
    """As text without line ends."""
    return " ".join(str(value).split())
