"""95% intervals by the bootstrap over examples, for every score of the package.

As many examples as there are are drawn with replacement, the score is taken of what was drawn, again and again, and the
interval lies between percentiles of these scores. It answers for the choice of examples, not for the seed of a run.
Two models on the same examples are compared by drawing the same examples for both (paired), which takes out what makes
an example hard for either.

Shapes: N examples, K values of each, S samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aunet.errors import AUNetError

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

    @property
    def apart(self) -> bool:
        """Whether zero lies outside, for differences."""
        return self.low > 0 or self.high < 0


def mean(scores: Sequence[float], seed: int = SEED, samples: int = SAMPLES) -> Interval:
    """The mean over examples, such as an accuracy; AUNetError without an example."""
    return mean_of_means([scores], seed, samples)


def difference(ours: Sequence[float], theirs: Sequence[float], seed: int = SEED, samples: int = SAMPLES) -> Interval:
    """Our mean less theirs on the same examples, drawn together; AUNetError where their numbers differ."""
    if len(ours) != len(theirs):
        raise AUNetError(f"a paired difference needs the same examples: {len(ours)} of one, {len(theirs)} of the other")
    return mean(np.subtract(ours, theirs).tolist(), seed, samples)


def difference_of_ratios(
    ours: Sequence[float], theirs: Sequence[float], sizes: Sequence[int], seed: int = SEED, samples: int = SAMPLES
) -> Interval:
    """Ours less theirs, of scores that are sums over the sizes of examples, such as bits per byte.

    `ours`, `theirs`: of each example, over the mean size; AUNetError where their numbers differ.
    """
    if not len(ours) == len(theirs) == len(sizes):
        raise AUNetError(f"a paired difference needs the same examples: {len(ours)} of one, {len(theirs)} of the other")
    sizes_N = np.asarray(sizes, dtype=np.float64)
    return ratio_of_sums(np.subtract(ours, theirs) * sizes_N.mean(), sizes_N, seed, samples)


def mean_of_means(tasks: Sequence[Sequence[float]], seed: int = SEED, samples: int = SAMPLES) -> Interval:
    """The average of several tasks, each counting the same; their examples are drawn independently."""
    if not tasks or not all(map(len, tasks)):
        raise AUNetError("an interval needs at least one example")
    generator = np.random.default_rng(seed)
    rows = [np.asarray(scores, dtype=np.float64)[None] for scores in tasks]
    means_S = np.mean([resample(row, generator, samples)[0] / row.shape[1] for row in rows], axis=0)
    return interval(float(np.mean([row.mean() for row in rows])), means_S)


def ratio_of_sums(over_N: Vector, under_N: Vector, seed: int = SEED, samples: int = SAMPLES) -> Interval:
    """The sum of one value over the sum of another of the same examples, such as bits over bytes."""
    sums_S = resample(np.stack([over_N, under_N]), np.random.default_rng(seed), samples, positive=[1])
    return interval(over_N.sum() / under_N.sum(), sums_S[0] / sums_S[1])


def ratio_of_ratios(ours_2N: Vector, theirs_2N: Vector, seed: int = SEED, samples: int = SAMPLES) -> Interval:
    """The ratio of sums of two rows over that of two other rows of the same examples, drawn together."""
    values_4N = np.concatenate([ours_2N, theirs_2N])
    sums_4S = resample(values_4N, np.random.default_rng(seed), samples, positive=[1, 2, 3])

    def ratio(rows: Vector) -> Vector:
        return (rows[0] / rows[1]) / (rows[2] / rows[3])

    return interval(float(ratio(values_4N.sum(axis=1))), ratio(sums_4S))


def corpus(
    counts_NK: Sequence[Sequence[float]],
    score: Callable[[list[Any]], float],
    seed: int = SEED,
    samples: int = SAMPLES,
) -> Interval:
    """A score of the sums of the counts of sentences, as BLEU and chrF are; sentences are drawn."""
    values_KN = np.asarray(counts_NK, dtype=np.float64).T
    sums_KS = resample(values_KN, np.random.default_rng(seed), samples)
    found = np.array([score(np.rint(sums_K).astype(int).tolist()) for sums_K in sums_KS.T])
    return interval(score(np.rint(values_KN.sum(axis=1)).astype(int).tolist()), found)


def resample(values_KN: Vector, generator: np.random.Generator, samples: int, positive: Sequence[int] = ()) -> Vector:
    """Sums over N examples drawn with replacement, [K, samples].

    `positive`: rows that something is divided by; where such a sum is 0, such as bytes of empty documents, the sample
    is drawn again. AUNetError if a whole row is 0.
    """
    rows = list(positive)
    if not (values_KN[rows].sum(axis=1) > 0).all():
        raise AUNetError("an interval of a ratio needs an example that is not empty or zero")
    count = values_KN.shape[1]
    at_once = max(1, CELLS // count)
    parts: list[Vector] = []
    while (missing := samples - sum(part.shape[1] for part in parts)) > 0:
        drawn_SN = generator.multinomial(count, np.full(count, 1 / count), size=min(at_once, missing))
        sums_KS = values_KN @ drawn_SN.T
        parts.append(sums_KS[:, (sums_KS[rows] > 0).all(axis=0)])
    return np.concatenate(parts, axis=1)


def interval(value: float, samples_S: Vector) -> Interval:
    """A value with the percentiles of its samples as bounds."""
    low, high = np.quantile(samples_S, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
