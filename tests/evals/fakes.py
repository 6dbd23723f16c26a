"""Answers that know everything, or nothing, for the tests of tasks."""

from collections.abc import Callable, Sequence
from typing import Any

from aunet.evals.answers import Continuation, Likelihood, Progress, Writing


class Fake:
    """Answers by two functions of what is asked; remembers what was asked."""

    def __init__(
        self, write: Callable[[str], str] = lambda prompt: "", bits: Callable[[str, str], float] = lambda p, t: 1.0
    ) -> None:
        self.write, self.bits = write, bits
        self.writings_asked: list[Writing] = []
        self.likelihoods_asked: list[Continuation] = []

    def likelihoods(self, asked: Sequence[Continuation], progress: Progress | None = None) -> list[Likelihood]:
        self.likelihoods_asked += asked
        return [Likelihood(self.bits(one.prompt.decode(), one.text.decode()), False) for one in asked]

    def writings(self, asked: Sequence[Writing], progress: Progress | None = None) -> list[bytes]:
        self.writings_asked += asked
        found = []
        for one in asked:
            text = self.write(one.prompt.decode()).encode()
            for stop in one.stop:
                text = text.partition(stop)[0]
            found.append(text[: one.max_bytes])
        return found


class Knows:
    """Holds what is called right for likely, a letter before it too; notes what it is asked."""

    def __init__(self, writes: bytes = b" right") -> None:
        self.asked: list[Continuation] = []
        self.written: list[Writing] = []
        self.writes = writes

    def likelihoods(self, asked: Sequence[Continuation], progress: Any = None) -> list[Likelihood]:
        self.asked += asked
        return [Likelihood(1.0 if self.right(one) else 40.0 * len(one.text), False) for one in asked]

    def right(self, one: Continuation) -> bool:
        named = b"\n" + one.text.strip() + b". right" in one.prompt
        return named or b"right" in one.text or b"right" in one.prompt.splitlines()[-1]

    def writings(self, asked: Sequence[Writing], progress: Any = None) -> list[bytes]:
        self.written += asked
        return [self.writes for _ in asked]
