"""Confidence intervals of bits per byte over documents, by the bootstrap.

Documents are drawn with replacement, as many as there are, and the ratio of the sums is taken: bits over bytes. The
interval lies between percentiles of the ratios. It answers for the choice of documents, not for the seed of a run.
Shapes: N documents, S samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aunet.errors import AUNetError
from aunet.scaling.records import DocumentScore

SAMPLES = 2000
LEVEL = 0.95
SEED = 0
CELLS = 1 << 22
"""Counts held at a time."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value, and the bounds in which it lies with a probability of LEVEL."""

    value: float
    low: float
    high: float


def bits_per_byte(documents: Sequence[DocumentScore], seed: int = SEED, samples: int = SAMPLES) -> Interval:
    """Bits per byte of all documents; of a single document nothing can be said, and the bounds are the value."""
    bits_N, bytes_N = _columns(documents)
    sums_S = _resample(np.stack([bits_N, bytes_N]), np.random.default_rng(seed), samples)
    return _interval(bits_N.sum() / bytes_N.sum(), sums_S[0] / sums_S[1])


def ratio(
    ours: Sequence[DocumentScore], theirs: Sequence[DocumentScore], seed: int = SEED, samples: int = SAMPLES
) -> Interval:
    """Our bits per byte over theirs on the same documents, drawn together (paired); below 1 ours is better.

    AUNetError if they are not the same documents, told by their sizes.
    """
    (our_bits_N, our_bytes_N), (their_bits_N, their_bytes_N) = _columns(ours), _columns(theirs)
    if not np.array_equal(our_bytes_N, their_bytes_N):
        raise AUNetError("a paired ratio needs two models that were scored on the same documents; use ratio_unpaired")
    # The bytes are the same in every sample and cancel out.
    sums_S = _resample(np.stack([our_bits_N, their_bits_N]), np.random.default_rng(seed), samples)
    return _interval(our_bits_N.sum() / their_bits_N.sum(), sums_S[0] / sums_S[1])


def ratio_unpaired(
    ours: Sequence[DocumentScore], theirs: Sequence[DocumentScore], seed: int = SEED, samples: int = SAMPLES
) -> Interval:
    """The same of two models on different documents, which are drawn independently."""
    generator = np.random.default_rng(seed)
    (our_bits_N, our_bytes_N), (their_bits_N, their_bytes_N) = _columns(ours), _columns(theirs)
    our_S = _resample(np.stack([our_bits_N, our_bytes_N]), generator, samples)
    their_S = _resample(np.stack([their_bits_N, their_bytes_N]), generator, samples)
    value = (our_bits_N.sum() / our_bytes_N.sum()) / (their_bits_N.sum() / their_bytes_N.sum())
    return _interval(value, (our_S[0] / our_S[1]) / (their_S[0] / their_S[1]))


def mean_documents(runs: Sequence[Sequence[DocumentScore]]) -> tuple[DocumentScore, ...]:
    """Mean bits of each document over runs that scored the same ones, such as seeds; AUNetError if they did not."""
    sizes = [tuple(size for _, size in documents) for documents in runs]
    if len(set(sizes)) != 1:
        raise AUNetError("a mean over runs needs runs that were scored on the same documents")
    bits_N = np.mean([[bits for bits, _ in documents] for documents in runs], axis=0)
    return tuple((float(bits), size) for bits, size in zip(bits_N, sizes[0], strict=True))


def _columns(documents: Sequence[DocumentScore]) -> tuple[Vector, Vector]:
    """Bits and bytes, [N] each."""
    values_N2 = np.asarray(documents, dtype=np.float64).reshape(-1, 2)
    if not values_N2[:, 1].sum():
        raise AUNetError("an interval needs documents with at least one byte")
    return values_N2[:, 0], values_N2[:, 1]


def _resample(values_KN: Vector, generator: np.random.Generator, samples: int) -> Vector:
    """Sums over N documents drawn with replacement, [K, samples]; a sample without a byte is drawn again."""
    count = values_KN.shape[1]
    at_once = max(1, CELLS // count)
    parts: list[Vector] = []
    while (missing := samples - sum(part.shape[1] for part in parts)) > 0:
        drawn_SN = generator.multinomial(count, np.full(count, 1 / count), size=min(at_once, missing))
        sums_KS = values_KN @ drawn_SN.T
        parts.append(sums_KS[:, (sums_KS > 0).all(axis=0)])
    return np.concatenate(parts, axis=1)


def _interval(value: float, samples_S: Vector) -> Interval:
    low, high = np.quantile(samples_S, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
