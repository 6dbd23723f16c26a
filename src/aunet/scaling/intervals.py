"""Confidence intervals of bits per byte over documents, by the bootstrap.

Documents are what is drawn (`aunet.evals.statistics`), and the ratio of the sums is taken: bits over bytes.
Shapes: N documents, S samples.
"""

from collections.abc import Sequence

import numpy as np

from aunet.errors import AUNetError
from aunet.evals.statistics import SAMPLES, SEED, Interval, Vector, ratio_of_sums
from aunet.scaling.records import DocumentScore


def bits_per_byte(documents: Sequence[DocumentScore], seed: int = SEED, samples: int = SAMPLES) -> Interval:
    """Bits per byte of all documents; of a single document nothing can be said, and the bounds are the value."""
    bits_N, bytes_N = _columns(documents)
    return ratio_of_sums(bits_N, bytes_N, seed, samples)


def ratio(
    ours: Sequence[DocumentScore], theirs: Sequence[DocumentScore], seed: int = SEED, samples: int = SAMPLES
) -> Interval:
    """Our bits per byte over theirs on the same documents, drawn together (paired); below 1 ours is better.

    AUNetError if they are not the same documents, told by their sizes.
    """
    (our_bits_N, our_bytes_N), (their_bits_N, their_bytes_N) = _columns(ours), _columns(theirs)
    if not np.array_equal(our_bytes_N, their_bytes_N):
        raise AUNetError("a paired ratio needs two models that were scored on the same documents")
    # The bytes are the same in every sample and cancel out.
    return ratio_of_sums(our_bits_N, their_bits_N, seed, samples)


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
