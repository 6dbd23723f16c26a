"""How likely texts are after prompts; what texts have in common is read once.

The ids of all texts form a tree: texts run together as far as they begin alike, and part where they differ.

    BOS "Q: one? A: yes. Q: two? A: "   read once, then copied for each of
            |-- "y" -- "es"             what follows it
            `-- "n" -- "o"

Branches are read side by side, `batch` of them and `together` ids at most, deepest first, so that few are open at a
time. The last id of a text is scored, and need not be read.

Shapes: n scored ids of a text, bytes or tokens; m ids read; R rows of logits of a pass; V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aunet.infer.session import Session
from aunet.infer.state import Context, State

TOGETHER = 16384
"""Ids that are read in one pass at most;"""
LOGITS = 1 << 24
"""and their logits: 64 MB in fp32."""
BATCH = 64
"""Branches that are read side by side at most."""

Progress = Callable[[int], None]
"""Told how many more texts have been scored."""


@dataclass(frozen=True)
class Scored:
    """The ids of a text from some place on."""

    bits_n: npt.NDArray[np.float64]
    """-log2 p(id | all before it)."""
    greedy_n: npt.NDArray[np.bool_]
    """Whether the model holds no other id for likelier there."""


def together(session: Session) -> int:
    """How many ids to score in one pass: what bounds its memory, whatever the vocabulary."""
    return max(1, min(TOGETHER, LOGITS // session.vocabulary.size))


def continuation_bits(session: Session, prompt: bytes, continuations: Sequence[bytes]) -> list[npt.NDArray[np.float64]]:
    """Bits of each id of each continuation, [n] each; their sum is -log2 p(continuation | prompt).

    A model over tokens reads prompt and continuation as tokens of their own: no token crosses the border.
    """
    before = session.vocabulary.encode(prompt)
    texts = [np.concatenate([before, session.vocabulary.encode(data)]) for data in continuations]
    return [found.bits_n for found in score_ids(session, texts, [len(before)] * len(texts))]


@dataclass(frozen=True, eq=False)
class _Text:
    """A text that is to be scored from the id `first` on."""

    ids: npt.NDArray[np.integer]
    first: int
    read_m: npt.NDArray[np.int32]
    """What is read of it: BOS and all but the last id, so that logits j are those of id j."""
    found: Scored


def _text(ids: npt.NDArray[np.integer], first: int, bos: int) -> _Text:
    n = len(ids) - first
    read_m = np.concatenate([[bos], ids[:-1]]).astype(np.int32)
    return _Text(ids, first, read_m, Scored(np.zeros(n), np.zeros(n, dtype=np.bool_)))


@dataclass
class _Branch:
    """Texts that begin alike, and the context that has read `start` ids of them."""

    texts: list[_Text]
    """In an order in which texts that begin alike are neighbours, shorter ones first."""
    context: Context
    start: int = 0
    end: int = field(init=False)
    """As far as they run together."""

    def __post_init__(self) -> None:
        self.end = _common(self.texts[0].read_m, self.texts[-1].read_m)

    def part(self, read: int) -> Iterator["_Branch"]:
        """After so many more ids: itself again, or the branches into which it parts; the context is handed on."""
        self.start += read
        if self.start < self.end:
            yield self
            return
        going = [text for text in self.texts if len(text.read_m) > self.end]
        groups = [list(group) for _, group in groupby(going, key=lambda text: int(text.read_m[self.end]))]
        for group in groups:
            yield _Branch(group, self.context if group is groups[-1] else self.context.copy(), self.end)


def score_ids(
    session: Session,
    texts: Sequence[npt.NDArray[np.integer]],
    firsts: Sequence[int],
    batch: int = BATCH,
    progress: Progress | None = None,
) -> list[Scored]:
    """Score each text, ids without BOS, from the place in `firsts` on; in the order given.

    How texts are batched and what else is asked changes nothing but rounding, and not even that where the kernels are
    batch invariant.
    """
    report = progress or (lambda count: None)
    asked = [_text(ids, first, session.vocabulary.bos) for ids, first in zip(texts, firsts, strict=True)]
    # Any order does in which texts that begin alike are neighbours.
    ordered = sorted((text for text in asked if len(text.ids) > text.first), key=lambda text: text.read_m.tobytes())
    report(len(asked) - len(ordered))
    stack = [_Branch(ordered, session.context())] if ordered else []
    limit = together(session)
    while stack:
        chosen: list[tuple[_Branch, int]] = []
        room = limit
        while stack and len(chosen) < batch and (not chosen or stack[-1].end - stack[-1].start <= room):
            branch = stack.pop()
            chosen.append((branch, min(branch.end - branch.start, limit)))
            room -= chosen[-1][1]
        ids = [branch.texts[0].read_m[branch.start : branch.start + size] for branch, size in chosen]
        parts = session.extend(State([branch.context for branch, _ in chosen]), ids)
        _score([branch for branch, _ in chosen], parts)
        for branch, size in chosen:
            ended = branch.start + size
            report(sum(len(text.read_m) == ended for text in branch.texts))
            stack += branch.part(size)
    return [text.found for text in asked]


def _score(branches: Sequence[_Branch], parts: Sequence[Tensor]) -> None:
    """Note the scores that the logits of newly read ids give, [m, V] for each branch."""
    wanted: list[Tensor] = []
    places: list[tuple[_Text, slice, slice]] = []
    """Of each text: which of its ids, and in which rows their logits stand."""
    height = 0
    for branch, logits_mV in zip(branches, parts, strict=True):
        start, end = branch.start, branch.start + len(logits_mV)
        top = max(start, min(text.first for text in branch.texts))
        if top >= end:
            continue
        for text in branch.texts:
            first = max(top, text.first)
            if first < end:
                places.append((text, slice(first, end), slice(height + first - top, height + end - top)))
        wanted.append(logits_mV[top - start :])
        height += end - top
    if not wanted:
        return
    logits_RV = torch.cat(wanted).float()
    rows = np.concatenate([np.arange(at.start, at.stop) for _, _, at in places])
    targets = np.concatenate([text.ids[which] for text, which, _ in places]).astype(np.int64)
    rows_, targets_ = (torch.from_numpy(values).to(logits_RV.device) for values in (rows, targets))
    nats = (logits_RV.logsumexp(-1)[rows_] - logits_RV[rows_, targets_]).double().cpu().numpy()
    greedy = (logits_RV.argmax(-1)[rows_] == targets_).cpu().numpy()
    done = 0
    for text, which, _ in places:
        size = which.stop - which.start
        into = slice(which.start - text.first, which.stop - text.first)
        text.found.bits_n[into] = nats[done : done + size] / math.log(2)
        text.found.greedy_n[into] = greedy[done : done + size]
        done += size


def _common(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> int:
    """How many ids two texts have in common at their beginning."""
    size = min(len(a), len(b))
    different = a[:size] != b[:size]
    return int(different.argmax()) if different.any() else size
