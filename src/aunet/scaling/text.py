"""What a text and its tokenizer ask of every shape: length of rows, bytes per unit of every rule, bytes per token."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aunet.bytes import VOCAB_SIZE
from aunet.config import SourceConfig
from aunet.data.problems import Problems
from aunet.data.sources import balanced
from aunet.errors import ConfigError
from aunet.splitting import splitter
from aunet.vocabulary import Tokens

NOVEL_CONTRACTION = (1.0, 4.57, 7.83, 12.14)
"""Bytes per unit of bytes, `word1`, `word2` and `word4` on English novels; a text of another kind has its own."""
WORDS = "word1+word2+word4"
MEASURED = 4e6
"""Bytes that are looked at, whole documents."""


@dataclass(frozen=True)
class Text:
    """A text in the numbers that matter to shapes."""

    seq_len: int
    """Bytes of a row, and the context of every system."""
    contraction: tuple[float, ...] = NOVEL_CONTRACTION
    """Bytes per unit of the stages that split at words."""
    bytes_per_token: float = 1.0
    """Of the tokenizer of a family over tokens."""
    tokenizer: str = ""
    """Its file."""
    vocab_size: int = VOCAB_SIZE
    """Its ids with both marks."""

    @property
    def row_ids(self) -> int:
        """Ids of a row."""
        return max(2, round(self.seq_len / self.bytes_per_token))


def measured(
    seq_len: int,
    sources: Sequence[str] = (),
    tokenizer: Path | None = None,
    text_field: str = "text",
    problems: Problems | None = None,
) -> Text:
    """Measure the first documents of files, globs or directories; without any, the contractions are those of novels.

    What can't be used is counted in `problems`. AUNetError for a file without a usable document, ConfigError for a
    tokenizer that cannot be used or without a text.
    """
    given = [SourceConfig(path=path, text_field=text_field) for path in sources]
    documents = list(balanced(given, MEASURED, Problems() if problems is None else problems))
    size = sum(map(len, documents))
    contraction: tuple[float, ...] = NOVEL_CONTRACTION
    if size:
        rule = splitter(WORDS)
        levels = [rule.levels(data) for data in documents]
        units = [sum(int((found >= s).sum()) for found in levels) for s in range(rule.depth + 1)]
        contraction = tuple(size / max(1, count) for count in units)
    if tokenizer is None:
        return Text(seq_len, contraction)
    tokens = Tokens.load(tokenizer)
    if not size:
        raise ConfigError(f"--tokenizer: bytes per token of {tokenizer} are measured on a text; give one with --text")
    count = sum(len(tokens.encode(data)) for data in documents)
    return Text(seq_len, contraction, size / count, str(tokenizer), tokens.size)
