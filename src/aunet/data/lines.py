"""Text and JSON Lines, plain and compressed."""

import codecs
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import IO, Any

from aunet.data.blocks import MIB, Block, Document, Format, document_of_line, one_line, open_file, open_unchanged
from aunet.data.problems import NOT_UTF8, Problems
from aunet.errors import MissingExtra

TEXT_DOCUMENT = MIB
"""Nominal size of the documents into which a larger .txt file is cut."""
BINARY_PROBE = 8192
BLANK = "nothing but blank lines"
LINE_NUMBERS_UP_TO = 256 * MIB
"""Beyond this offset a problem is named by its byte offset: counting the lines before it would take seconds."""
SCANNED = 1 << 16
"""Bytes that are looked through at a time for the end of a line."""
SAMPLE = 4 * MIB
"""Decompressed bytes from which the contraction of a compressed file is estimated."""
ZSTD_READ = 512
"""Compressed bytes at a time: the library gives all that is in them at once, 128 KiB for every 4 at worst."""


class Text(Format):
    """`.txt`: one document; a file over 1 MiB is a run of documents of about 1 MiB, cut at line ends.

    A byte order mark of UTF-8 is no part of it.
    """

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
                document = file.read(stop - start)
                if len(document) < stop - start:
                    return  # cut off while it was read, which is refused where the file is closed
                if not nominal:
                    document = document.removeprefix(codecs.BOM_UTF8)
                if document:
                    try:
                        document.decode()
                    except UnicodeDecodeError:
                        problems.add(NOT_UTF8, block.path, "convert it, as with iconv, to learn its characters")
                    yield nominal + TEXT_DOCUMENT, document
                elif not nominal:
                    problems.add("empty file", block.path, "nothing but a byte order mark")

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
            at = position or _line_start(file, block.start, block.stop)
            file.seek(at)
            blank = block.start == at == 0 and block.stop == block.file_size
            while at < block.stop and (line := file.readline()):
                blank = blank and not line.strip()
                document = document_of_line(line, field, problems, partial(_line_name, block.path, at))
                at += len(line)
                if document:
                    yield at, document
            if blank:
                problems.add("empty file", block.path, BLANK)

    def held(self, block: Block) -> float:
        """Up to the last end of a line that starts in the block: where lines are long, blocks are far from alike."""
        with open_file(block.path, buffering=SCANNED) as file:
            first = _line_start(file, block.start, block.stop)
            return float(_line_start(file, block.stop, block.file_size) - first) if first < block.stop else 0.0


class CompressedLines(Format):
    """`.jsonl.gz`, `.jsonl.zst`: one JSON object per line; a whole file is one block."""

    def __init__(self, name: str, chunks: Callable[[IO[bytes]], Iterator[bytes]]) -> None:
        self.name = name
        self.chunks = chunks

    def blocks(self, path: str, size: int, block_bytes: int, field: str, problems: Problems) -> list[Block]:
        """The whole file."""
        return [Block(self.name, path, 0, size, size, size)]

    def expansion(self, paths: Sequence[str], field: str) -> float:
        """The mean over the files."""
        return sum(map(self._expansion, paths)) / max(len(paths), 1)

    def _expansion(self, path: str) -> float:
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
        number, blank = 0, not position
        with open_unchanged(block) as file:
            try:
                for line in _split_lines(self.chunks(file)):
                    number += 1
                    blank = blank and not line.strip()
                    if number <= position:
                        continue
                    if document := document_of_line(line, field, problems, f"{block.path}:{number}"):
                        yield number, document
            except _Corrupt as error:
                problems.add("corrupt file", f"{block.path}:{number + 1}", f"{error}; read up to here")
                return
        if blank:
            problems.add("empty file", block.path, BLANK if number else "empty file")


def _line_start(file: IO[bytes], offset: int, limit: int) -> int:
    """The first line start at or after an offset; `limit` if there is none before."""
    if offset == 0:
        return 0
    at = offset - 1
    file.seek(at)
    # Never beyond a block that is read: a huge line that covers many blocks is scanned once, not once per block.
    while at < limit and (chunk := file.read(min(SCANNED, limit - at))):
        end = chunk.find(b"\n")
        if end >= 0:
            return at + end + 1
        at += len(chunk)
    return limit


def _ranges(name: str, path: str, size: int, step: int) -> list[Block]:
    return [Block(name, path, at, min(at + step, size), min(step, size - at), size) for at in range(0, size, step)]


def _is_binary(file: IO[bytes], block: Block, problems: Problems) -> bool:
    """Whether it is no text, or one in units of two or four bytes."""
    probe = file.read(BINARY_PROBE)
    wide = probe.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # that of UTF-32 begins as the first does
    if wide and block.start == 0:
        problems.add("UTF-16 text", block.path, "UTF-16 text; convert it to UTF-8, as with iconv")
    elif b"\0" in probe and block.start == 0:
        problems.add("binary file", block.path, f"binary file (a NUL byte in its first {BINARY_PROBE} bytes)")
    return wide or b"\0" in probe


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


class _Corrupt(Exception):
    """A compressed stream that ends early or is not what its name says."""


def gzip_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Decompressed pieces of a gzip file."""
    stream = gzip.GzipFile(fileobj=file)
    try:
        while chunk := stream.read1(MIB):
            yield chunk
    except EOFError:
        raise _Corrupt("truncated gzip file") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _Corrupt(f"corrupt gzip file ({one_line(error)})") from None


def zstd_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Decompressed pieces of a zstd file, of one frame or several; of 16 MiB at most, mostly 128 KiB."""
    # Not the stream reader: it takes a truncated file for a complete one.
    zstandard = _zstandard()
    new = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
    stream, inside = new(), False
    try:
        while compressed := file.read(ZSTD_READ):
            while compressed:
                if stream.eof:
                    stream = new()
                if chunk := stream.decompress(compressed):
                    yield chunk
                inside = not stream.eof
                compressed = stream.unused_data if stream.eof else b""
    except zstandard.ZstdError as error:
        raise _Corrupt(f"corrupt zstd file ({one_line(error)})") from None
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
