"""What tasks ask of a model, and its answers: how likely a text is after a prompt, and what it writes after one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from aunet.errors import ConfigError
from aunet.infer.engine import Engine
from aunet.infer.generate import collect
from aunet.infer.request import Request
from aunet.infer.sampling import Sampling
from aunet.infer.scoring import BATCH, Progress, score_ids
from aunet.infer.session import Session


@dataclass(frozen=True, order=True)
class Continuation:
    """A text whose probability after a prompt is asked for."""

    prompt: bytes
    text: bytes


@dataclass(frozen=True)
class Likelihood:
    """The answer to a Continuation."""

    bits: float
    """-log2 p(text | prompt); the end of the document does not count."""
    greedy: bool
    """Whether the likeliest id at each place spells the text."""

    @property
    def log(self) -> float:
        """Natural logarithm of the probability."""
        return -self.bits * math.log(2)


@dataclass(frozen=True)
class Writing:
    """A prompt that the model is to continue, always with the likeliest byte (or token)."""

    prompt: bytes
    max_bytes: int = 256
    stop: tuple[bytes, ...] = ()
    """Ends before any of these, which may begin inside a character."""


class Answers(Protocol):
    """Anything that answers: a model, or a cache before it."""

    def likelihoods(self, asked: Sequence[Continuation], progress: Progress | None = None) -> list[Likelihood]:
        """In the order asked, whatever order they are worked on in."""
        ...

    def writings(self, asked: Sequence[Writing], progress: Progress | None = None) -> list[bytes]:
        """New bytes of each, in the order asked, without the stop string."""
        ...


BLOCK = 1024
"""Texts that are held as ids at a time."""


class ModelAnswers:
    """A model that answers, `batch` requests side by side; how many changes no answer but for rounding.

    For models over tokens, white space at the end of a prompt counts with the text behind it, and the two are cut into
    tokens together, as lm-evaluation-harness does: " Paris" is one token, but not after "is ". A token that lies on
    both sides of the border counts with the text.
    """

    def __init__(self, session: Session, batch: int = BATCH) -> None:
        if batch < 1:
            raise ConfigError(f"batch: {batch} is not at least 1")
        self.session, self.batch = session, batch

    def likelihoods(self, asked: Sequence[Continuation], progress: Progress | None = None) -> list[Likelihood]:
        """What prompts have in common is read once, whatever the order; no request is answered twice."""
        found: dict[Continuation, Likelihood] = {}
        unique = sorted(set(asked))
        if progress:
            progress(len(asked) - len(unique))
        for start in range(0, len(unique), BLOCK):
            block = unique[start : start + BLOCK]
            texts, firsts = zip(*map(self._ids, block), strict=True)
            for one, scored in zip(block, score_ids(self.session, texts, firsts, self.batch, progress), strict=True):
                found[one] = Likelihood(float(scored.bits_n.sum()), bool(scored.greedy_n.all()))
        return [found[one] for one in asked]

    def _ids(self, one: Continuation) -> tuple[npt.NDArray[np.integer], int]:
        """The ids of prompt and text, and the place of the first that counts."""
        vocabulary = self.session.vocabulary
        ids = vocabulary.encode(one.prompt + one.text)
        if vocabulary.unit == "byte":
            return ids, len(one.prompt)
        if not one.text:
            return ids, len(ids)
        ends = vocabulary.lengths(ids).cumsum()
        return ids, int(np.searchsorted(ends, len(one.prompt.rstrip()), side="right"))

    def writings(self, asked: Sequence[Writing], progress: Progress | None = None) -> list[bytes]:
        """By continuous batching; no request is answered twice."""
        unique = list(dict.fromkeys(asked))
        if progress:
            progress(len(asked) - len(unique))
        engine = Engine(self.session, self.batch)
        for one in unique:
            engine.submit(Request(one.prompt, one.max_bytes, Sampling(0.0), one.stop))
        events = []
        while engine.busy:
            new = engine.step()
            events += new
            if progress:
                progress(sum(event.finish is not None for event in new))
        found = dict(zip(unique, collect(events), strict=True))
        return [found[one].data for one in asked]
