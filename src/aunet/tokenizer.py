"""`aunet tokenizer train`: learn a byte-level BPE from files and say how long its tokens are."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from aunet.config import SourceConfig
from aunet.data.problems import Problems
from aunet.data.sources import balanced
from aunet.errors import AUNetError, ConfigError
from aunet.files import make_directory, replacing
from aunet.vocabulary import Tokens
from aunet.vocabulary.training import train_tokenizer

MEASURED = 10_000_000
"""Bytes on which the length of tokens is measured, or the whole documents that reach them."""


@dataclass(frozen=True)
class Trained:
    """A tokenizer that was written."""

    path: str
    asked: int
    tokens: int
    """In the file; fewer than asked for where the text has not so many pairs that repeat."""
    documents: int
    bytes: int
    """What was read."""
    bytes_per_token: float
    """On the first `measured_bytes` of it."""
    measured_bytes: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def line(self) -> str:
        """For people."""
        fewer = f" ({self.asked:,} were asked for; no more pairs repeat)" if self.tokens < self.asked else ""
        where = "" if self.measured_bytes == self.bytes else f" (on the first {self.measured_bytes:,} bytes)"
        return (
            f"{self.path}: {self.tokens:,} tokens{fewer} from {self.documents:,} documents, {self.bytes:,} bytes; "
            f"{self.bytes_per_token:.3f} bytes per token{where}"
        )


def train_file(
    paths: Sequence[str], size: int, out: Path, text_field: str, max_bytes: float | None, console: Console
) -> Trained:
    """Train on the documents of files, globs, directories or hf: sources, and write `out`.

    `max_bytes`: stop when so many bytes have been read, equally from all paths. `console` shows what was skipped.
    AUNetError for a path without a usable document, or where `out` cannot be written or is there.
    """
    if max_bytes is not None and not max_bytes > 0:
        raise ConfigError(f"--max-bytes: {max_bytes:g} is not above 0")
    # Before the text is read, which may take hours: can the result be written?
    make_directory(out.parent, "--out")
    if out.is_dir():
        raise AUNetError(f"--out: {out} is a directory; name a file, such as {out / 'tokenizer.json'}")
    if out.exists():
        raise AUNetError(f"--out: {out} is there, and models may be of its tokens; remove it or name another file")
    sources = [SourceConfig(path=path, text_field=text_field) for path in paths]
    most, problems = math.inf if max_bytes is None else max_bytes, Problems()
    documents = total = 0

    def counted() -> Iterator[bytes]:
        nonlocal documents, total
        for data in balanced(sources, most, problems):
            documents, total = documents + 1, total + len(data)
            yield data

    with console.status("reading and merging"):
        text = train_tokenizer(counted(), size)
    problems.tell(console)
    try:
        with replacing(out) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AUNetError(f"--out: {out} cannot be written ({error.strerror})") from None
    vocabulary = Tokens(text, str(out))
    ids = measured = 0
    with console.status("measuring"):
        for data in balanced(sources, min(most, MEASURED), Problems()):
            ids, measured = ids + len(vocabulary.encode(data)), measured + len(data)
    return Trained(str(out), size, vocabulary.size - 2, documents, total, measured / ids, measured)
