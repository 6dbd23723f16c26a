"""How likely continuations of one prompt are; the prompt is read once.

Shapes: n bytes of a continuation, V vocabulary.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from aunet.bytes import BOS
from aunet.infer.session import Session
from aunet.infer.state import State

TOGETHER = 16384
"""Bytes of continuations that are read in one pass, as far as none is longer."""


def continuation_bits(session: Session, prompt: bytes, continuations: Sequence[bytes]) -> list[npt.NDArray[np.float64]]:
    """Bits of each byte of each continuation, [n] each; their sum is -log2 p(continuation | prompt)."""
    (context,) = (state := session.start(1)).contexts
    last_V = session.extend(state, [[BOS, *prompt]])[0][-1]
    found = []
    for group in _groups(continuations):
        # The last byte of a continuation is scored, and need not be read.
        parts = session.extend(State([context.copy() for _ in group]), [list(data[:-1]) for data in group])
        for data, logits_nV in zip(group, parts, strict=True):
            if not data:
                found.append(np.empty(0))
                continue
            logits_nV = torch.cat([last_V[None], logits_nV]).float()
            nats_n = F.cross_entropy(logits_nV, torch.tensor(list(data), device=logits_nV.device), reduction="none")
            found.append(nats_n.double().cpu().numpy() / math.log(2))
    return found


def _groups(continuations: Sequence[bytes]) -> list[list[bytes]]:
    """In order, as many together as have TOGETHER bytes, one at least."""
    groups: list[list[bytes]] = []
    size = TOGETHER
    for data in continuations:
        if size + len(data) > TOGETHER:
            groups.append([])
            size = 0
        groups[-1].append(data)
        size += len(data) + 1
    return groups
