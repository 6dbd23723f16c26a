"""Bits per byte, the one measure in which all systems are compared.

bits per byte = (-log2 p(bytes) - log2 p(EOS)) / number of bytes, over whole documents: EOS counts in the numerator and
never in the denominator. A document that is longer than a chunk is read through cached state, which equals one uncut
forward pass. Shapes: n bytes of a document, V vocabulary.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from aunet.bytes import BOS, EOS
from aunet.config import RunConfig
from aunet.data.sources import valid_documents
from aunet.errors import AUNetError
from aunet.infer.session import Session
from aunet.infer.state import State
from aunet.model.aunet import AUNet
from aunet.splitting import splitter

CHUNK = 16384
"""Bytes read in one pass: bounds the memory, whatever the length of a document."""


@dataclass(frozen=True)
class Score:
    """Bits of some documents. Scores of disjoint documents add up."""

    bits: float = 0.0
    bytes: int = 0
    characters: int = 0
    documents: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.bits + other.bits,
            self.bytes + other.bytes,
            self.characters + other.characters,
            self.documents + other.documents,
        )

    @property
    def bits_per_byte(self) -> float:
        """Bits, ends of documents included, over bytes; AUNetError where there is no byte."""
        if not self.bytes:
            raise AUNetError("bits per byte: the documents are empty, there is no byte to divide by")
        return self.bits / self.bytes

    @property
    def bits_per_character(self) -> float:
        """The same bits over UTF-8 characters; an invalid byte counts as one."""
        return self.bits / max(self.characters, 1)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; the ratios are null for empty documents."""
        full = self.bytes > 0
        return {
            "bits_per_byte": self.bits_per_byte if full else None,
            "bits_per_character": self.bits_per_character if full else None,
            "bits": self.bits,
            "bytes": self.bytes,
            "characters": self.characters,
            "documents": self.documents,
        }


def document_bits(session: Session, data: bytes, chunk: int = CHUNK) -> npt.NDArray[np.float64]:
    """Bits of each byte and, last, of EOS: [n + 1]."""
    state = session.start(1)
    return np.concatenate(list(_chunks(session, state, data, chunk)))


def _chunks(session: Session, state: State, data: bytes, chunk: int) -> Iterable[npt.NDArray[np.float64]]:
    ids = np.concatenate([[BOS], np.frombuffer(data, dtype=np.uint8), [EOS]]).astype(np.int64)
    levels = np.concatenate([[session.splitter.depth], session.splitter.levels(data)])
    for first in range(0, len(data) + 1, chunk):
        end = min(first + chunk, len(data) + 1)
        (logits,) = session.extend(state, [ids[first:end]], [levels[first:end]])
        targets = torch.from_numpy(ids[first + 1 : end + 1]).to(logits.device)
        yield F.cross_entropy(logits.float(), targets, reduction="none").double().cpu().numpy() / math.log(2)


def score(session: Session, documents: Iterable[bytes], chunk: int = CHUNK) -> Score:
    """Score whole documents; short ones are read together, long ones chunk by chunk."""
    total, size = Score(), 0
    waiting: list[bytes] = []
    for data in documents:
        if len(data) >= chunk:
            total += _counted(data, float(document_bits(session, data, chunk).sum()))
            continue
        if size + len(data) > chunk:
            total += _score_together(session, waiting)
            waiting, size = [], 0
        waiting.append(data)
        size += len(data) + 1
    return total + _score_together(session, waiting)


def _score_together(session: Session, documents: list[bytes]) -> Score:
    """One plain forward pass: it needs no caches, which would be as long as the longest document for each of them."""
    if not documents:
        return Score()
    depth, device = session.splitter.depth, session.device
    texts = [np.frombuffer(data, dtype=np.uint8) for data in documents]
    ids_T = np.concatenate([part for text in texts for part in ([BOS], text)]).astype(np.int64)
    targets_T = np.concatenate([part for text in texts for part in (text, [EOS])]).astype(np.int64)
    levels_T = np.concatenate([part for data in documents for part in ([depth], session.splitter.levels(data))])
    counts = [int((levels_T >= s).sum()) for s in range(depth + 1)]
    lengths = [len(data) + 1 for data in documents]
    arrays = (ids_T, levels_T.astype(np.uint8), np.cumsum([0, *lengths]))
    inputs = [torch.from_numpy(array).to(device) for array in arrays]
    with torch.inference_mode():
        logits_TV = session.model(*inputs, counts, max(lengths)).float()
        nats = F.cross_entropy(logits_TV, torch.from_numpy(targets_T).to(device), reduction="none").double().sum()
    total = sum((_counted(data, 0.0) for data in documents), Score())
    return replace(total, bits=float(nats) / math.log(2))


def _counted(data: bytes, bits: float) -> Score:
    return Score(bits, len(data), len(data.decode(errors="replace")), 1)


def make_validate(config: RunConfig) -> Callable[[AUNet], Mapping[str, float]] | None:
    """What the trainer calls to score the held-out documents of a configuration; None where it has none."""
    if not config.data.valid:
        return None
    documents = valid_documents(config.data)

    def validate(model: AUNet) -> Mapping[str, float]:
        found = score(Session(model, splitter(config.model.splitter)), documents)
        return {
            "bits_per_byte": found.bits_per_byte,
            "bits_per_character": found.bits_per_character,
            "bytes": found.bytes,
        }

    return validate
