"""Bits per byte of files: per file and in total."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
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
    """Score every document of the files, globs and directories; `console` shows what is read and what was skipped.

    Raises AUNetError for a path without a usable document.
    """
    problems = Problems()
    documents: dict[str, list[bytes]] = {}
    for name, data in files_documents(paths, text_field, problems):
        documents.setdefault(name, []).append(data)
    files = {}
    with console.status("") as status:
        for name, found in documents.items():
            status.update(f"{escape(name)}: {len(found)} documents, {sum(map(len, found)):,} bytes")
            files[name] = score(session, found)
    problems.tell(console)
    return FileScores(files, sum(files.values(), Score()))


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
