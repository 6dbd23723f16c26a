"""Bits per byte, the one measure in which all systems are compared.

bits per byte = (-log2 p(bytes) - log2 p(EOS)) / number of bytes, over whole documents: EOS counts in the numerator and
never in the denominator. A document that is longer than a chunk is read through cached state, which equals one uncut
forward pass.

For a model over tokens the bits are those of the tokens into which its tokenizer cuts the document, and of EOS; the
bytes are the document's. Other tokens that spell the same bytes have a probability too, which is left out: the number
is an upper bound of the model's bits per byte.

Shapes: n ids of a document, bytes or tokens; V vocabulary.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from aunet.config import RunConfig
from aunet.data.problems import Problems
from aunet.data.sources import valid_documents
from aunet.data.text import Text, read
from aunet.errors import AUNetError
from aunet.infer.scoring import together
from aunet.infer.session import Session
from aunet.model.aunet import AUNet
from aunet.splitting import splitter
from aunet.vocabulary import vocabulary


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
        """The same bits over UTF-8 characters, and the U+FFFD that stand for what is none."""
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


def document_bits(session: Session, data: bytes, chunk: int | None = None) -> npt.NDArray[np.float64]:
    """Bits of each id of a document, byte or token, and, last, of EOS: [n + 1]. Read in pieces of `chunk` ids."""
    text = read(data, session.splitter, session.vocabulary)
    return np.concatenate(list(_chunks(session, text, chunk or together(session))))


def _chunks(session: Session, text: Text, chunk: int) -> Iterable[npt.NDArray[np.float64]]:
    ids, levels, state = text.ids, text.levels, session.start(1)
    ids = np.concatenate([[session.vocabulary.bos], ids, [session.vocabulary.eos]]).astype(np.int64)
    levels = np.concatenate([[session.splitter.depth], levels])
    for first in range(0, len(levels), chunk):
        end = min(first + chunk, len(levels))
        (logits,) = session.extend(state, [ids[first:end]], [levels[first:end]])
        targets = torch.from_numpy(ids[first + 1 : end + 1]).to(logits.device)
        yield F.cross_entropy(logits.float(), targets, reduction="none").double().cpu().numpy() / math.log(2)


def score(session: Session, documents: Iterable[bytes], chunk: int | None = None) -> Score:
    """Score whole documents; short ones are read together, long ones in pieces of `chunk` ids."""
    return sum((found for _, found in _scores(session, documents, chunk or together(session))), Score())


def score_documents(session: Session, documents: Iterable[bytes], chunk: int | None = None) -> list[Score]:
    """The score of each document, in order, as if it were scored alone; for intervals over documents."""
    found = sorted(_scores(session, documents, chunk or together(session)), key=lambda pair: pair[0])
    return [score for _, score in found]


def _scores(session: Session, documents: Iterable[bytes], chunk: int) -> Iterator[tuple[int, Score]]:
    """Number and score of each document, as they become known."""
    waiting: list[tuple[int, bytes, Text]] = []
    size = 0
    for number, data in enumerate(documents):
        text = read(data, session.splitter, session.vocabulary)
        if len(text.ids) >= chunk:
            yield number, _counted(data, sum(float(bits.sum()) for bits in _chunks(session, text, chunk)))
            continue
        if size + len(text.ids) > chunk:
            yield from _score_together(session, waiting)
            waiting, size = [], 0
        waiting.append((number, data, text))
        size += len(text.ids) + 1
    yield from _score_together(session, waiting)


def _score_together(session: Session, documents: list[tuple[int, bytes, Text]]) -> Iterator[tuple[int, Score]]:
    """One plain forward pass: it needs no caches, which would be as long as the longest document for each of them."""
    if not documents:
        return
    depth, device, vocabulary = session.splitter.depth, session.device, session.vocabulary
    texts = [text for _, _, text in documents]
    ids_T = np.concatenate([part for text in texts for part in ([vocabulary.bos], text.ids)]).astype(np.int64)
    targets_T = np.concatenate([part for text in texts for part in (text.ids, [vocabulary.eos])]).astype(np.int64)
    levels_T = np.concatenate([part for text in texts for part in ([depth], text.levels)])
    counts = [int((levels_T >= s).sum()) for s in range(depth + 1)]
    lengths = [len(text.ids) + 1 for text in texts]
    arrays = (ids_T, levels_T.astype(np.uint8), np.cumsum([0, *lengths]))
    inputs = [torch.from_numpy(array).to(device) for array in arrays]
    with torch.inference_mode():
        logits_TV = session.model(*inputs, counts, max(lengths)).float()
        nats_T = F.cross_entropy(logits_TV, torch.from_numpy(targets_T).to(device), reduction="none").double().cpu()
    for (number, data, _), nats in zip(documents, nats_T.split(lengths), strict=True):
        yield number, _counted(data, float(nats.sum()) / math.log(2))


def _counted(data: bytes, bits: float) -> Score:
    return Score(bits, len(data), len(data.decode(errors="replace")), 1)


def make_validate(config: RunConfig, problems: Problems | None = None) -> Callable[[AUNet], Mapping[str, float]] | None:
    """What the trainer calls to score the held-out documents of a configuration; None where it has none.

    What of them can't be used is counted in `problems`.
    """
    if not config.data.valid:
        return None
    documents = valid_documents(config.data, problems)
    rule, words = splitter(config.model.splitter), vocabulary(config.model)

    def validate(model: AUNet) -> Mapping[str, float]:
        found = score(Session(model, rule, vocabulary=words), documents)
        return {
            "bits_per_byte": found.bits_per_byte,
            "bits_per_character": found.bits_per_character,
            "bytes": found.bytes,
        }

    return validate
