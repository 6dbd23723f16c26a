"""File formats: how a file is cut into blocks, and how the documents of a block are read.

A block is what one lane reads in one go: a byte range of a plain file, a row group of a parquet file, a whole
compressed file, a shard of a Hugging Face dataset. `read(block, position, ...)` yields `(after, document)`: the
document as bytes, and the position from which reading goes on after it. A position is 0 for the start of the block,
otherwise what the format can find again: a byte offset, or a number of lines or rows.
"""

import gzip
import io
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from aunet.bytes import to_bytes
from aunet.data.problems import Problems
from aunet.errors import AUNetError, MissingExtra

MIB = 1 << 20
TEXT_DOCUMENT = MIB
"""Nominal size of the documents into which a larger .txt file is cut."""
BLOCKS_PER_SOURCE = 1024
SMALLEST_BLOCK, LARGEST_BLOCK = 256 << 10, 64 * MIB
BINARY_PROBE = 8192
LINE_NUMBERS_UP_TO = 256 * MIB
"""Beyond this offset a problem is named by its byte offset: counting the lines before it would take seconds."""
SAMPLE = 4 * MIB
"""Decompressed bytes from which the contraction of a compressed file is estimated."""


class Block(NamedTuple):
    """A part of a source that is read in one go; `start` and `stop` are bytes, row groups or shards."""

    format: str
    path: str
    start: int
    stop: int
    size: float
    """Uncompressed bytes, exact or estimated; only the shares and the balance of lanes depend on it."""
    file_size: int


Document = tuple[int, bytes]


class Format(ABC):
    """One kind of file."""

    @abstractmethod
    def blocks(self, path: str, size: int, block_bytes: int, field: str, problems: Problems) -> list[Block]:
        """Cut a file of `size` bytes into blocks of about `block_bytes`; [] and a problem where it can't be used."""

    def expansion(self, path: str) -> float:
        """Uncompressed bytes per byte of the file, estimated from its beginning."""
        return 1.0

    @abstractmethod
    def read(self, block: Block, position: int, field: str, problems: Problems) -> Iterator[Document]:
        """Documents of a block from a position on, with the position after each."""


def block_bytes_for(total: int) -> int:
    """Size of a block of plain text: small enough to spread and shuffle a source, large enough to list it."""
    return min(max(total // BLOCKS_PER_SOURCE, SMALLEST_BLOCK), LARGEST_BLOCK)


class Text(Format):
    """`.txt`: one document; a file over 1 MiB is a run of documents of about 1 MiB, cut at line ends."""

    def blocks(self, path: str, size: int, block_bytes: int, field: str, problems: Problems) -> list[Block]:
        """Ranges of whole nominal documents."""
        step = max(block_bytes // TEXT_DOCUMENT, 1) * TEXT_DOCUMENT
        return _ranges("text", path, size, step)

    def read(self, block: Block, position: int, field: str, problems: Problems) -> Iterator[Document]:
        """A position is the nominal offset of a document, a multiple of TEXT_DOCUMENT."""
        # Where the text is really cut depends on the nominal offset alone, so that neighbours agree.
        with open_unchanged(block) as file:
            if _is_binary(file, block, problems):
                return
            for nominal in range(position or block.start, block.stop, TEXT_DOCUMENT):
                start = self._cut(file, nominal, block.file_size)
                stop = self._cut(file, min(nominal + TEXT_DOCUMENT, block.file_size), block.file_size)
                file.seek(start)
                if document := file.read(stop - start):
                    yield nominal + TEXT_DOCUMENT, document

    @staticmethod
    def _cut(file: IO[bytes], nominal: int, size: int) -> int:
        """The first line start at or after `nominal`; without one in reach the next character start."""
        if nominal in (0, size):
            return nominal
        file.seek(nominal - 1)
        text = file.read(TEXT_DOCUMENT)
        end = text.find(b"\n")
        if end >= 0:
            return nominal + end
        lead = next((i for i, byte in enumerate(text[1:5]) if byte & 0xC0 != 0x80), 0)
        return min(nominal + lead, size)


class Lines(Format):
    """`.jsonl`: one JSON object per line."""

    def blocks(self, path: str, size: int, block_bytes: int, field: str, problems: Problems) -> list[Block]:
        """Byte ranges."""
        return _ranges("lines", path, size, block_bytes)

    def read(self, block: Block, position: int, field: str, problems: Problems) -> Iterator[Document]:
        """A line belongs to the block in which it starts; a position is a byte offset."""
        with open_unchanged(block) as file:
            if _is_binary(file, block, problems):
                return
            at = position or self._first_line(file, block)
            file.seek(at)
            while at < block.stop and (line := file.readline()):
                document = document_of_line(line, field, problems, partial(_line_name, block.path, at))
                at += len(line)
                if document:
                    yield at, document

    @staticmethod
    def _first_line(file: IO[bytes], block: Block) -> int:
        """Offset of the first line start in the block; its end if there is none."""
        if block.start == 0:
            return 0
        file.seek(block.start - 1)
        at = block.start - 1
        # Never beyond the block: a huge line that covers many blocks is scanned once, not once per block.
        while at < block.stop and (chunk := file.read(min(MIB, block.stop - at))):
            end = chunk.find(b"\n")
            if end >= 0:
                return at + end + 1
            at += len(chunk)
        return block.stop


class CompressedLines(Format):
    """`.jsonl.gz`, `.jsonl.zst`: one JSON object per line; a whole file is one block."""

    def __init__(self, name: str, chunks: Callable[[IO[bytes]], Iterator[bytes]]) -> None:
        self.name = name
        self.chunks = chunks

    def blocks(self, path: str, size: int, block_bytes: int, field: str, problems: Problems) -> list[Block]:
        """The whole file."""
        return [Block(self.name, path, 0, size, size, size)]

    def expansion(self, path: str) -> float:
        """From the first 4 MiB of text."""
        with open_file(path) as file:
            count = 0
            try:
                for chunk in self.chunks(file):
                    count += len(chunk)
                    if count >= SAMPLE:
                        break
            except _Corrupt:
                pass
            return max(count / max(file.tell(), 1), 1.0)

    def read(self, block: Block, position: int, field: str, problems: Problems) -> Iterator[Document]:
        """A position is a number of lines; going on from one decompresses what is before it."""
        number = 0
        with open_unchanged(block) as file:
            try:
                for line in _split_lines(self.chunks(file)):
                    number += 1
                    if number <= position:
                        continue
                    if document := document_of_line(line, field, problems, f"{block.path}:{number}"):
                        yield number, document
            except _Corrupt as error:
                problems.add("corrupt file", f"{block.path}:{number + 1}", f"{error}; read up to here")
                return
        if number == 0:
            problems.add("empty file", block.path, "empty file")


class Parquet(Format):
    """`.parquet`: one row, one document, in a column of strings or bytes; a block is a row group."""

    def blocks(self, path: str, size: int, block_bytes: int, field: str, problems: Problems) -> list[Block]:
        """The row groups that have rows."""
        arrow, parquet = _pyarrow()
        try:
            with open_file(path) as file:
                reader = parquet.ParquetFile(file)
                names = list(reader.schema_arrow.names)
                metadata = reader.metadata
        except (arrow.ArrowException, OSError) as error:
            problems.add("corrupt file", path, f"not a readable parquet file ({_one_line(error)})")
            return []
        if field not in names:
            problems.add("no text field", path, _no_field(field, names, "file", "columns"))
            return []
        if metadata.num_rows == 0:
            problems.add("empty file", path, "empty file")
        leaf = next(
            (i for i in range(metadata.num_columns) if metadata.schema.column(i).path.split(".")[0] == field), 0
        )
        groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
        return [
            Block("parquet", path, i, i + 1, group.column(leaf).total_uncompressed_size, size)
            for i, group in enumerate(groups)
            if group.num_rows
        ]

    def read(self, block: Block, position: int, field: str, problems: Problems) -> Iterator[Document]:
        """A position is a number of rows in the row group."""
        arrow, parquet = _pyarrow()
        with open_unchanged(block) as file:
            before = number = 0
            try:
                reader = parquet.ParquetFile(file)
                before = sum(reader.metadata.row_group(i).num_rows for i in range(block.start))
                # Threads of Arrow don't survive a fork, and a worker is one core anyway.
                for batch in reader.iter_batches(256, row_groups=[block.start], columns=[field], use_threads=False):
                    if number + len(batch) <= position:
                        number += len(batch)
                        continue
                    for value in batch.column(0).to_pylist():
                        number += 1
                        if number <= position:
                            continue
                        where = f"{block.path}:{before + number}"
                        if document := document_of_value(value, field, problems, where):
                            yield number, document
            except (arrow.ArrowException, OSError) as error:
                problems.add(
                    "corrupt file", f"{block.path}:{before + number + 1}", f"{_one_line(error)}; read up to here"
                )


class HubShard(Format):
    """`hf:NAME[:CONFIG][@SPLIT]`: a streamed Hugging Face dataset (split train if not given); a block is a shard."""

    def blocks(self, path: str, size: int, block_bytes: int, field: str, problems: Problems) -> list[Block]:
        """The shards."""
        dataset = _hub_dataset(path)
        shards = int(dataset.num_shards)
        return [Block("hf", path, i, shards, self._bytes(dataset) / shards, size) for i in range(shards)]

    @staticmethod
    def _bytes(dataset: Any) -> float:
        """Bytes of the split as the hub states them; NaN where it doesn't."""
        splits = dataset.info.splits or {}
        known = splits[dataset.split].num_bytes if dataset.split in splits else dataset.info.dataset_size
        return float(known) if known else float("nan")

    def read(self, block: Block, position: int, field: str, problems: Problems) -> Iterator[Document]:
        """A position is a number of rows of the shard."""
        number = position
        try:
            shard = _hub_dataset(block.path).shard(num_shards=block.stop, index=block.start)
            for row in shard.skip(position) if position else shard:
                number += 1
                where = f"{block.path} shard {block.start}:{number}"
                if document := document_of_row(row, field, problems, where, "row"):
                    yield number, document
        except AUNetError:
            raise
        except Exception as error:  # the readers behind a hub dataset raise whatever they like
            raise AUNetError(f"{block.path} shard {block.start}:{number + 1}: {_one_line(error)}") from error


def document_of_line(line: bytes, field: str, problems: Problems, where: str | Callable[[], str]) -> bytes | None:
    """Text of a JSON line; None where there is none, which is counted (blank lines are not)."""
    if not line or line.isspace():
        return None
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        what = f"not valid JSON ({error.msg} at column {error.colno}), expected one object per line"
        problems.add("malformed JSON", where, what)
    except UnicodeDecodeError:
        problems.add("malformed JSON", where, "not UTF-8")
    except (ValueError, RecursionError) as error:  # digits or nesting beyond Python's limits
        problems.add("malformed JSON", where, _one_line(error))
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
        problems.add("no text field", where, _no_field(field, list(row), noun, "keys"))
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


def open_file(path: str) -> IO[bytes]:
    """Open for reading; AUNetError that names the file where that fails."""
    try:
        return Path(path).open("rb", buffering=MIB)
    except OSError as error:
        raise AUNetError(f"{path}: {error.strerror}") from None


def open_unchanged(block: Block) -> IO[bytes]:
    """Open the file of a block; AUNetError if its size is not the one that the blocks were made for."""
    file = open_file(block.path)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size != block.file_size:
        file.close()
        raise AUNetError(f"{block.path}: changed while it was being read: had {block.file_size} bytes, has {size}")
    return file


def _ranges(name: str, path: str, size: int, step: int) -> list[Block]:
    return [Block(name, path, at, min(at + step, size), min(step, size - at), size) for at in range(0, size, step)]


def _is_binary(file: IO[bytes], block: Block, problems: Problems) -> bool:
    binary = b"\0" in file.read(BINARY_PROBE)
    if binary and block.start == 0:
        problems.add("binary file", block.path, f"binary file (a NUL byte in its first {BINARY_PROBE} bytes)")
    return binary


def _line_name(path: str, offset: int) -> str:
    """`path:LINE` of the line at a byte offset."""
    if offset > LINE_NUMBERS_UP_TO:
        return f"{path}:byte {offset}"
    with open_file(path) as file:
        number, left = 1, offset
        while left and (chunk := file.read(min(left, MIB))):
            number += chunk.count(b"\n")
            left -= len(chunk)
    return f"{path}:{number}"


def _no_field(field: str, names: list[str], noun: str, plural: str) -> str:
    shown = ", ".join(_one_line(name) for name in names[:12]) + (", ..." if len(names) > 12 else "")
    return f"text_field is {field!r}, the {noun} has the {plural}: {shown or 'none'}; set text_field"


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


class _Corrupt(Exception):
    """A compressed stream that ends early or is not what its name says."""


def _gzip_chunks(file: IO[bytes]) -> Iterator[bytes]:
    stream = gzip.GzipFile(fileobj=file)
    try:
        while chunk := stream.read1(MIB):
            yield chunk
    except EOFError:
        raise _Corrupt("truncated gzip file") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _Corrupt(f"corrupt gzip file ({_one_line(error)})") from None


def _zstd_chunks(file: IO[bytes]) -> Iterator[bytes]:
    # Not the stream reader: it takes a truncated file for a complete one.
    zstandard = _zstandard()
    new = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
    stream, inside = new(), False
    try:
        while compressed := file.read(64 << 10):
            while compressed:
                if stream.eof:
                    stream = new()
                if chunk := stream.decompress(compressed):
                    yield chunk
                inside = not stream.eof
                compressed = stream.unused_data if stream.eof else b""
    except zstandard.ZstdError as error:
        raise _Corrupt(f"corrupt zstd file ({_one_line(error)})") from None
    if inside:
        raise _Corrupt("truncated zstd file")


def _split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their ends; what stands after the last end is a line if it isn't empty."""
    parts: list[bytes] = []  # of a line that runs over several chunks
    for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        parts.append(first)
        if rest:
            yield b"".join(parts)
            yield from rest[:-1]
            parts = [rest[-1]]
    if last := b"".join(parts):
        yield last


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("zstandard", "data", "reading .zst files") from None
    return zstandard


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", "data", "reading .parquet files") from None
    return pyarrow, pyarrow.parquet


@lru_cache(maxsize=8)
def _hub_dataset(path: str) -> Any:
    """The streaming dataset of `hf:NAME[:CONFIG][@SPLIT]`; AUNetError with the first line of what went wrong."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "data", "reading hf: sources") from None
    name, _, split = path.removeprefix("hf:").partition("@")
    name, _, config = name.partition(":")
    try:
        return datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
    except Exception as error:  # network, names, splits: each has its own class
        raise AUNetError(f"{path}: {_one_line(error)}") from None


FORMATS: dict[str, Format] = {
    "text": Text(),
    "lines": Lines(),
    "gzip": CompressedLines("gzip", _gzip_chunks),
    "zstd": CompressedLines("zstd", _zstd_chunks),
    "parquet": Parquet(),
    "hf": HubShard(),
}
SUFFIXES = {".txt": "text", ".jsonl": "lines", ".jsonl.gz": "gzip", ".jsonl.zst": "zstd", ".parquet": "parquet"}
"""The table of formats by file name."""


def format_of(path: str) -> str | None:
    """Name of the format of a file, from its suffix."""
    name = path.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)
