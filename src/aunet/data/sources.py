"""Sources: which files a path means, their documents in order, and the lanes of a source for training."""

import hashlib
import heapq
import math
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from glob import glob, has_magic
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from aunet.config import DataConfig, SourceConfig
from aunet.data.blocks import MIB, Block, open_file
from aunet.data.formats import FORMATS, SUFFIXES, format_of
from aunet.data.problems import Problems, nothing_usable
from aunet.errors import AUNetError

HUB = "hf:"
LINK = "link to a directory"
NEITHER = "neither a file nor a directory"
SAMPLED_FILES = 8
BLOCKS_PER_SOURCE = 1024
SMALLEST_BLOCK, LARGEST_BLOCK = 256 << 10, 64 * MIB
"""Blocks of plain files: small enough to spread and shuffle a source over lanes, few enough to list."""


def documents(source: SourceConfig, problems: Problems | None = None) -> Generator[bytes, None, None]:
    """Documents of a source, each once, in the order of its files; a .txt over 1 MiB is a run of about 1 MiB each.

    What can't be used is counted in `problems`; AUNetError if nothing can.
    """
    problems = Problems() if problems is None else problems
    here, found = Problems(), False
    try:
        for block in _survey(source, here).blocks:
            for _, document in FORMATS[block.format].read(block, 0, source.text_field, here):
                found = True
                yield document
    finally:
        problems.merge(here)  # also if the caller stops early
    if not found:
        raise nothing_usable(source.path, here)


def files_documents(
    paths: Iterable[str | Path], text_field: str = "text", problems: Problems | None = None
) -> Generator[tuple[str, bytes], None, None]:
    """(file, document) for every document of the files, globs, directories or hf: sources given, in order, for scoring.

    A file that several paths mean is read once. Unlike `documents` a .txt of any size is one document. AUNetError for a
    path without a single usable document.
    """
    problems = Problems() if problems is None else problems
    done: set[str] = set()
    for path in paths:
        here, found, own = Problems(), False, set[str]()
        try:
            for block in _survey(SourceConfig(path=str(path), text_field=text_field), here).blocks:
                file = os.path.realpath(block.path)
                if file in done:  # another path means it too
                    found = True
                    continue
                own.add(file)
                for document in _whole(block, text_field, here):
                    found = True
                    yield block.path, document
        finally:
            problems.merge(here)  # also if the caller stops early
        done |= own
        if not found:
            raise nothing_usable(str(path), here)


def _whole(block: Block, text_field: str, problems: Problems) -> Iterator[bytes]:
    reader = FORMATS[block.format]
    if block.format != "text":
        yield from (document for _, document in reader.read(block, 0, text_field, problems))
    elif block.start == 0:  # which reads the other blocks of the file too
        block = block._replace(stop=block.file_size)
        if document := b"".join(part for _, part in reader.read(block, 0, text_field, problems)):
            yield document


def valid_documents(config: DataConfig, problems: Problems | None = None) -> list[bytes]:
    """Held-out documents of `config.valid`: whole ones, in order, until `valid_bytes` are reached or passed.

    Several sources get equal numbers of bytes.
    """
    return list(balanced(config.valid, config.valid_bytes, Problems() if problems is None else problems))


def balanced(sources: Sequence[SourceConfig], most: float, problems: Problems) -> Iterator[bytes]:
    """Whole documents until `most` bytes are reached or passed, of each source in its order.

    Sources get equal numbers of bytes while they last: the one with the fewest so far gives the next document.
    """
    reading = [documents(source, problems) for source in sources]
    waiting = [(0, i) for i in range(len(reading))]
    total = 0
    while waiting and total < most:
        count, i = heapq.heappop(waiting)
        document = next(reading[i], None)
        if document is not None:
            yield document
            total += len(document)
            heapq.heappush(waiting, (count + len(document), i))
    for left in reading:
        left.close()


class SourcePlan(NamedTuple):
    """A source cut into lanes: the same for every rank, worker and resume, as long as the files are the same."""

    path: str
    text_field: str
    lanes: tuple[tuple[Block, ...], ...]
    lane_sizes: tuple[float, ...]
    """What each holds, by which they take turns, so that all reach the end of an epoch at about the same time."""
    size: float
    """Uncompressed bytes, NaN if unknown: exact for plain files, estimated for compressed ones and parquet."""
    files: int
    bytes: int
    """Size of the files as they lie on the disk."""
    digest: str
    """Of all file names and sizes."""


def plan_source(source: SourceConfig, lanes: int, problems: Problems) -> SourcePlan:
    """Cut a source into at most `lanes` lanes, each with at least one usable document, balanced by size.

    Problems of whole files and of lanes without any document are counted here, all others by who reads the lanes.
    AUNetError if there is no document at all.
    """
    here = Problems()
    survey = _survey(source, here)
    kept: list[tuple[Block, ...]] = []
    for lane in deal(survey.blocks, lanes):
        inside = Problems()
        if any(True for block in lane for _ in FORMATS[block.format].read(block, 0, source.text_field, inside)):
            kept.append(lane)
        else:
            here.merge(inside)
    problems.merge(here)
    if not kept:
        raise nothing_usable(source.path, here)
    sizes = [sum(FORMATS[block.format].held(block) for block in lane) for lane in kept]
    return SourcePlan(
        path=source.path,
        text_field=source.text_field,
        lanes=tuple(kept),
        lane_sizes=tuple(float(len(lane)) for lane in kept) if math.isnan(sum(sizes)) else tuple(sizes),
        size=sum(sizes),
        files=survey.files,
        bytes=survey.bytes,
        digest=survey.digest,
    )


def deal(blocks: Sequence[Block], lanes: int) -> list[tuple[Block, ...]]:
    """Deal blocks to lanes: the largest first, each to the lane that is lightest so far; in a lane in their order."""
    lanes = min(lanes, len(blocks))
    sizes = [0.0 if math.isnan(block.size) else block.size for block in blocks]
    if not any(sizes):
        sizes = [1.0] * len(blocks)
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    lightest = [(0.0, lane) for lane in range(lanes)]
    for i in sorted(range(len(blocks)), key=lambda i: (-sizes[i], i)):
        weight, lane = heapq.heappop(lightest)
        dealt[lane].append(i)
        heapq.heappush(lightest, (weight + sizes[i], lane))
    return [tuple(blocks[i] for i in sorted(lane)) for lane in dealt if lane]


class _Survey(NamedTuple):
    blocks: list[Block]
    files: int
    bytes: int
    digest: str


def _survey(source: SourceConfig, problems: Problems) -> _Survey:
    """All blocks of a source in the order of its files."""
    if source.path.startswith(HUB):
        blocks = FORMATS["hf"].blocks(source.path, 0, 0, source.text_field, problems)
        return _Survey(blocks, len(blocks), 0, _digest([(source.path, len(blocks))]))
    files = [(path, _file_size(path)) for path in find_files(source.path, problems)]
    total = sum(size for _, size in files)
    block_bytes = min(max(total // BLOCKS_PER_SOURCE, SMALLEST_BLOCK), LARGEST_BLOCK)
    expansions = _expansions(files, source.text_field)
    blocks = []
    for path, size in files:
        if size == 0:
            problems.add("empty file", path, "empty file")
            continue
        kind = format_of(path) or ""
        made = FORMATS[kind].blocks(path, size, block_bytes, source.text_field, problems)
        blocks += [block._replace(size=block.size * expansions[kind]) for block in made]
    return _Survey(blocks, len(files), total, _digest(files))


def _expansions(files: Sequence[tuple[str, int]], field: str) -> dict[str, float]:
    """Uncompressed bytes per byte of each format, from the beginning of a few of its files."""
    found = {}
    for kind in dict.fromkeys(format_of(path) or "" for path, _ in files):
        paths = [path for path, size in files if size and format_of(path) == kind]
        sample = paths[:: max(len(paths) // SAMPLED_FILES, 1)][:SAMPLED_FILES]
        found[kind] = FORMATS[kind].expansion(sample, field)
    return found


def find_files(path: str, problems: Problems) -> list[str]:
    """Files that a path, glob or directory means, sorted; directories are walked, names with a leading dot left out.

    A file without a known suffix, or a pipe, is refused if it is named, counted if a glob or directory holds it. What
    several links lead to is taken once.
    """
    if not path:  # which would mean the current directory
        raise AUNetError("the path of a source is empty; name a file, a directory or a glob")
    try:
        return _find(Path(path).expanduser(), path, problems)
    except OSError as error:
        raise AUNetError(f"{path}: {error.strerror}") from None
    except RuntimeError as error:  # no home directory
        raise AUNetError(f"{path}: {error}") from None


def _find(root: Path, path: str, problems: Problems) -> list[str]:
    if root.is_file():
        if format_of(path) is None:
            raise AUNetError(f"{path}: unknown kind of file; known: {', '.join(SUFFIXES)}, hf:NAME")
        return [str(root)]
    if root.is_dir():
        found = _walk(root, problems)
    elif has_magic(path):
        matches = glob(str(root), recursive=True)  # noqa: PTH207 (absolute patterns)
        found = sorted(match for match in matches if not Path(match).is_dir())
    else:
        raise AUNetError(f"{path}: {NEITHER}" if root.exists() else f"{path}: no such file or directory")
    usable = _usable(found, problems)
    if not usable:
        what = "holds" if root.is_dir() else "matches"
        links = f"; {LINK} is not followed" if LINK in problems.counts else ""
        raise AUNetError(f"{path}: {what} no file of a known kind ({', '.join(SUFFIXES)}){links}")
    return usable


def _usable(found: Iterable[str], problems: Problems) -> list[str]:
    """Regular files of a known kind, each once; the others are counted."""
    usable: dict[str, str] = {}
    for name in found:
        if not Path(name).is_file():
            leads = "" if Path(name).exists() else f"leads to {Path(name).readlink()}, which is not there"
            problems.add("not a file", name, leads or NEITHER)
        elif not format_of(name):
            problems.add("unknown kind of file", name, f"unknown kind of file; known: {', '.join(SUFFIXES)}")
        elif (first := usable.setdefault(os.path.realpath(name), name)) != name:
            problems.add("repeated file", name, f"is {first}, which is read once")
    return list(usable.values())


def _walk(root: Path, problems: Problems) -> list[str]:
    def refuse(error: OSError) -> None:
        raise AUNetError(f"{error.filename}: {error.strerror}")

    found: list[str] = []
    for folder, inner, names in os.walk(root, onerror=refuse):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for link in (path for name in sorted(inner) if (path := Path(folder) / name).is_symlink()):
            # It may lead to what is read anyway, or to where it is itself.
            problems.add(LINK, str(link), f"leads to {link.readlink()}, which is not followed; name that as a source")
        found += [str(Path(folder) / name) for name in names if not name.startswith(".")]
    return sorted(found)


def _file_size(path: str) -> int:
    with open_file(path) as file:  # not stat: a file that can't be read is named before training starts
        return file.seek(0, os.SEEK_END)


def _digest(files: Iterable[tuple[str, int]]) -> str:
    names = chain.from_iterable((path, str(size)) for path, size in files)
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()[:16]
