"""Answers that are remembered in a file: who asks again, after an interruption or in another process, need not wait.

An SQLite file with one row per answer. What is asked is worked on in blocks, and a block is written as soon as it is
answered: a process that is killed loses one block at most, and never what was written. Several processes may share a
file; they may answer the same request twice, and then the later answer stays.
"""

import hashlib
import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from aunet.errors import AUNetError
from aunet.evals.answers import Answers, Continuation, Likelihood, Writing
from aunet.infer.scoring import Progress
from aunet.model.directory import CONFIG, TOKENIZER, WEIGHTS

BLOCK = 256
"""Requests that are answered between two writes."""
PATIENCE = 60.0
"""Seconds to wait for other processes that write."""
CONVENTION = 1
"""Goes up when the same request is to be answered in another way, so that old answers are not taken for new ones."""
TABLE = "CREATE TABLE IF NOT EXISTS answers (request BLOB PRIMARY KEY, answer BLOB NOT NULL)"
_LIKELIHOOD = struct.Struct("<d?")

Asked = TypeVar("Asked", Continuation, Writing)
Answer = TypeVar("Answer")


def model_digest(directory: Path, weights: str = "fp32") -> str:
    """Tells models apart by their files: configuration, weights, tokenizer; and by how the weights are held."""
    digest = hashlib.sha256(weights.encode())
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        path = directory / name
        if not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                digest.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise AUNetError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


class CachedAnswers:
    """A file of answers before whoever gives them; `model` tells whose answers they are, see `model_digest`."""

    def __init__(self, answers: Answers, path: Path, model: str) -> None:
        self._answers, self._path, self._model = answers, path, model
        with self._readable():
            self._file = sqlite3.connect(path, timeout=PATIENCE)
            with self._file:
                self._file.execute(TABLE)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def likelihoods(self, asked: Sequence[Continuation], progress: Progress | None = None) -> list[Likelihood]:
        """In the order asked."""
        return self._all(
            asked,
            progress,
            lambda one: _key(self._model, b"likelihood", one.prompt, one.text),
            self._answers.likelihoods,
            lambda answer: _LIKELIHOOD.pack(answer.bits, answer.greedy),
            lambda data: Likelihood(*_LIKELIHOOD.unpack(data)),
        )

    def writings(self, asked: Sequence[Writing], progress: Progress | None = None) -> list[bytes]:
        """In the order asked."""
        return self._all(
            asked,
            progress,
            lambda one: _key(self._model, b"writing", one.prompt, str(one.max_bytes).encode(), *one.stop),
            self._answers.writings,
            bytes,
            bytes,
        )

    def _all(
        self,
        asked: Sequence[Asked],
        progress: Progress | None,
        key: Callable[[Asked], bytes],
        answer: Callable[[Sequence[Asked], Progress | None], list[Answer]],
        pack: Callable[[Answer], bytes],
        unpack: Callable[[bytes], Answer],
    ) -> list[Answer]:
        keys = {one: key(one) for one in asked}
        found: dict[Asked, Answer] = {}
        for one in keys:
            with self._readable():
                row = self._file.execute("SELECT answer FROM answers WHERE request = ?", (keys[one],)).fetchone()
                if row:
                    found[one] = unpack(row[0])
        # In an order in which prompts that begin alike are in the same block.
        missing = sorted((one for one in keys if one not in found), key=lambda one: one.prompt)
        if progress:
            progress(len(asked) - len(missing))
        for start in range(0, len(missing), BLOCK):
            block = missing[start : start + BLOCK]
            answers = answer(block, progress)
            rows = [(keys[one], pack(given)) for one, given in zip(block, answers, strict=True)]
            with self._readable(), self._file:
                self._file.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
            found |= zip(block, answers, strict=True)
        return [found[one] for one in asked]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, struct.error, TypeError) as error:
            raise AUNetError(
                f"{self._path}: cannot be used as a cache of answers ({error}); name another file, or remove it"
            ) from None


def _key(*parts: str | bytes) -> bytes:
    digest = hashlib.sha256(bytes([CONVENTION]))
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()
