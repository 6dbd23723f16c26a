"""Files of every format with known documents, and a splitter that needs no rule."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from aunet.bytes import BOS, EOS
from aunet.config import SourceConfig
from aunet.data import Problems, documents
from aunet.data.rows import Row
from aunet.errors import AUNetError
from aunet.splitting import Levels, Stream

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


@dataclass(frozen=True)
class Residues:
    """Levels by the value of a byte: the highest at multiples of 7, the next at multiples of 3, ..."""

    depth: int = 2
    rule: str = "residues"

    def levels(self, data: bytes) -> Levels:
        text = np.frombuffer(data, dtype=np.uint8)
        found = np.zeros(len(text), dtype=np.uint8)
        for level, divisor in enumerate((3, 7)[: self.depth], start=1):
            found[text % divisor == 0] = level
        return found

    def stream(self) -> Stream:
        raise NotImplementedError


def sentences(n: int, words: int = 6, seed: int = 0) -> list[str]:
    """n different documents of up to 2 * words words, some of them not ASCII."""
    draw = np.random.default_rng(seed)
    vocabulary = ["house", "river", "naïve", "東京", "a", "of", "remember", "🙂", "winter", "line\nbreak"]
    return [
        f"{i}: " + " ".join(vocabulary[j] for j in draw.integers(len(vocabulary), size=draw.integers(1, 2 * words)))
        for i in range(n)
    ]


def write(path: Path, texts: Sequence[str], field: str = "text") -> Path:
    """Write texts in the format that the suffix names; .txt takes one text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({field: text, "n": i}, ensure_ascii=False) + "\n" for i, text in enumerate(texts))
    if path.name.endswith(".txt"):
        path.write_bytes("".join(texts).encode())
    elif path.name.endswith(".jsonl"):
        path.write_bytes(lines.encode())
    elif path.name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.name.endswith(".jsonl.zst"):
        half = len(lines) // 2  # two frames, as tools that compress in parallel write them
        parts = [zstandard.ZstdCompressor().compress(part.encode()) for part in (lines[:half], lines[half:])]
        path.write_bytes(b"".join(parts))
    else:
        table = pa.table({field: list(texts), "n": list(range(len(texts)))})
        pq.write_table(table, path, row_group_size=max(len(texts) // 5, 1))
    return path


def read(path: Path | str, problems: Problems | None = None, **keys: str) -> list[bytes]:
    """The documents of a source."""
    return list(documents(SourceConfig(path=str(path), **keys), problems))


def error_of(path: Path | str, **keys: str) -> str:
    """The one line that a source is refused with."""
    with pytest.raises(AUNetError) as error:
        read(path, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)


def encoded(texts: Sequence[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def pieces(row: Row) -> list[tuple[bytes, bool, bool]]:
    """(bytes read, starts a document, ends one) of every piece of a row; checks what must hold within a piece."""
    found = []
    assert row.starts[0] == 0
    assert row.starts[-1] == len(row.ids) == len(row.targets) == len(row.levels)
    for start, stop in zip(row.starts[:-1], row.starts[1:], strict=True):
        ids, targets = row.ids[start:stop], row.targets[start:stop]
        assert len(ids) > 0
        assert (targets[:-1] == ids[1:]).all()
        first, last = bool(ids[0] == BOS), bool(targets[-1] == EOS)
        text = ids[first:]
        assert (text < BOS).all()
        found.append((text.astype(np.uint8).tobytes(), first, last))
    assert row.bytes == sum(len(text) for text, _, _ in found)
    return found


def same(a: Row, b: Row) -> bool:
    """Whether two rows are equal in everything."""
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("ids", "targets", "levels", "starts"))
    return arrays and a.counts == b.counts and a.bytes == b.bytes
