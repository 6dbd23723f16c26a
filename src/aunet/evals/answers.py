"""What tasks ask of a model, and its answers: how likely a text is after a prompt, and what it writes after one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional as F

from aunet.infer.engine import Engine
from aunet.infer.generate import collect
from aunet.infer.request import Request
from aunet.infer.sampling import Sampling
from aunet.infer.session import Session


@dataclass(frozen=True)
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


Progress = Callable[[int], None]
"""Told how many more requests have been answered."""


class Answers(Protocol):
    """Anything that answers: a model, or a cache before it."""

    def likelihoods(self, asked: Sequence[Continuation], progress: Progress | None = None) -> list[Likelihood]:
        """In the order asked, whatever order they are worked on in."""
        ...

    def writings(self, asked: Sequence[Writing], progress: Progress | None = None) -> list[bytes]:
        """New bytes of each, in the order asked, without the stop string."""
        ...


class ModelAnswers:
    """A model that answers."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def likelihoods(self, asked: Sequence[Continuation], progress: Progress | None = None) -> list[Likelihood]:
        """One request after the other."""
        found = []
        for one in asked:
            vocabulary = self.session.vocabulary
            before, ids = vocabulary.encode(one.prompt).tolist(), vocabulary.encode(one.text).tolist()
            (logits_nV,) = self.session.extend(self.session.start(1), [[vocabulary.bos, *before, *ids[:-1]]])
            logits_nV, ids_n = logits_nV[len(before) :].float(), torch.tensor(ids)
            nats = F.cross_entropy(logits_nV[: len(ids)], ids_n, reduction="sum") if ids else 0.0
            greedy = bool((logits_nV[: len(ids)].argmax(-1) == ids_n).all())
            found.append(Likelihood(float(nats) / math.log(2), greedy))
            if progress:
                progress(1)
        return found

    def writings(self, asked: Sequence[Writing], progress: Progress | None = None) -> list[bytes]:
        """All at once, by continuous batching."""
        engine = Engine(self.session)
        tickets = [engine.submit(Request(w.prompt, w.max_bytes, Sampling(0.0), w.stop)) for w in asked]
        events = []
        while engine.busy:
            new = engine.step()
            events += new
            if progress:
                progress(sum(event.finish is not None for event in new))
        texts = dict(zip(sorted({event.index for event in events}), collect(events), strict=True))
        return [texts[ticket].data for ticket in tickets]
