"""How likely continuations of one prompt are; the prompt is read once.

Shapes: n ids of a continuation, bytes or tokens; V vocabulary.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from aunet.infer.session import Session
from aunet.infer.state import State

TOGETHER = 16384
"""Ids that are read in one pass at most, as far as no text is longer;"""
LOGITS = 1 << 24
"""and their logits: 64 MB in fp32."""


def together(session: Session) -> int:
    """How many ids to score in one pass: what bounds its memory, whatever the vocabulary."""
    return max(1, min(TOGETHER, LOGITS // session.vocabulary.size))


def continuation_bits(session: Session, prompt: bytes, continuations: Sequence[bytes]) -> list[npt.NDArray[np.float64]]:
    """Bits of each id of each continuation, [n] each; their sum is -log2 p(continuation | prompt).

    A model over tokens reads prompt and continuation as tokens of their own: no token crosses the border.
    """
    vocabulary = session.vocabulary
    (context,) = (state := session.start(1)).contexts
    last_V = session.extend(state, [[vocabulary.bos, *vocabulary.encode(prompt).tolist()]])[0][-1]
    found = []
    for group in _groups([vocabulary.encode(data).tolist() for data in continuations], together(session)):
        # The last id of a continuation is scored, and need not be read.
        parts = session.extend(State([context.copy() for _ in group]), [ids[:-1] for ids in group])
        for ids, logits_nV in zip(group, parts, strict=True):
            if not ids:
                found.append(np.empty(0))
                continue
            logits_nV = torch.cat([last_V[None], logits_nV]).float()
            nats_n = F.cross_entropy(logits_nV, torch.tensor(ids, device=logits_nV.device), reduction="none")
            found.append(nats_n.double().cpu().numpy() / math.log(2))
    return found


def _groups(continuations: Sequence[list[int]], most: int) -> list[list[list[int]]]:
    """In order, as many together as have `most` ids, one at least."""
    groups: list[list[list[int]]] = []
    size = most
    for ids in continuations:
        if size + len(ids) > most:
            groups.append([])
            size = 0
        groups[-1].append(ids)
        size += len(ids) + 1
    return groups
