"""Bits per byte of files: per file and in total."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from aunet.data.problems import Problems
from aunet.data.sources import files_documents
from aunet.evals.bpb import Score, score
from aunet.infer.session import Session


@dataclass(frozen=True)
class FileScores:
    """The scores of files in the order given, and of all their documents together."""

    files: dict[str, Score]
    total: Score

    def to_json(self) -> dict[str, Any]:
        """As JSON values: `bits_per_byte` and the counts of the total, and the same per file under `files`."""
        return {**self.total.to_json(), "files": {name: found.to_json() for name, found in self.files.items()}}


def score_files(session: Session, paths: Sequence[str], text_field: str, console: Console) -> FileScores:
    """Score every document of the files, globs and directories as it is read, so that few are in memory at a time.

    `console` shows what is read and what was skipped. AUNetError for a path without a usable document, before any is
    scored.
    """
    for path in paths:
        next(files_documents([path], text_field))
    problems = Problems()
    files = {}
    with console.status("") as status:
        for name, found in groupby(files_documents(paths, text_field, problems), key=itemgetter(0)):
            files[name] = score(session, _shown(found, status))
    problems.tell(console)
    return FileScores(files, sum(files.values(), Score()))


def _shown(documents: Iterable[tuple[str, bytes]], status: Status) -> Iterator[bytes]:
    """Documents of a file, while `status` says how much of it has been read."""
    count = size = 0
    for name, data in documents:
        count, size = count + 1, size + len(data)
        status.update(f"{escape(name)}: {count:,} documents, {size:,} bytes")
        yield data


def table(scores: FileScores) -> Table:
    """One row per file, the total last."""
    view = Table(box=None, pad_edge=False)
    view.add_column("file", overflow="fold")
    for column in ("documents", "bytes", "bits per byte", "bits per character"):
        view.add_column(column, justify="right")
    rows = [*scores.files.items(), ("total", scores.total)]
    for name, found in rows if len(scores.files) > 1 else rows[:1]:
        ratios = (found.bits_per_byte, found.bits_per_character)
        view.add_row(escape(name), f"{found.documents:,}", f"{found.bytes:,}", *(f"{ratio:.4f}" for ratio in ratios))
    return view
