"""Bootstrap over documents: do the intervals hold what they promise?"""

import numpy as np
import pytest

from aunet.errors import AUNetError
from aunet.scaling.intervals import bits_per_byte, mean_documents, ratio

Documents = list[tuple[float, int]]


def drawn(count: int, generator: np.random.Generator) -> tuple[Documents, Documents]:
    """Documents of very different lengths under two models, the second 5% better on each, give or take 3%."""
    sizes = np.maximum(1, generator.lognormal(6, 1, count)).astype(int)
    rates = generator.normal(2.0, 0.4, count)
    better = 0.95 * rates * generator.normal(1.0, 0.03, count)
    return [[(float(rate * size), int(size)) for rate, size in zip(of, sizes, strict=True)] for of in (rates, better)]  # type: ignore[return-value]


def test_the_value_is_the_ratio_of_sums_and_a_seed_gives_the_same_bounds() -> None:
    documents, _ = drawn(30, np.random.default_rng(0))
    found = bits_per_byte(documents)
    assert found.value == pytest.approx(sum(bits for bits, _ in documents) / sum(size for _, size in documents))
    assert found.low <= found.value <= found.high
    assert bits_per_byte(documents) == found
    assert bits_per_byte(documents, seed=1) != found


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    trials, generator = 300, np.random.default_rng(5)
    held = {"value": 0, "ratio": 0}
    widths = {"value": 0.0, "ratio": 0.0}
    for k in range(trials):
        ours, theirs = drawn(120, generator)
        value, paired = bits_per_byte(ours, seed=k, samples=400), ratio(theirs, ours, seed=k, samples=400)
        held["value"] += value.low <= 2.0 <= value.high
        held["ratio"] += paired.low <= 0.95 <= paired.high
        widths["value"] += value.high / value.low - 1
        widths["ratio"] += paired.high / paired.low - 1
    assert 0.89 < held["value"] / trials < 0.99
    assert 0.89 < held["ratio"] / trials < 0.99
    assert widths["ratio"] < widths["value"] / 5  # what the documents share does not count


def test_a_single_document_has_no_width() -> None:
    found = bits_per_byte([(12.0, 6)])
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)


def test_samples_without_a_byte_are_drawn_again() -> None:
    found = bits_per_byte([(1.0, 0), (8.0, 4)], samples=300)
    assert np.isfinite([found.low, found.high]).all()


def test_many_documents_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    documents, _ = drawn(50, np.random.default_rng(0))
    whole = bits_per_byte(documents, samples=500)
    monkeypatch.setattr("aunet.evals.statistics.CELLS", 60)
    parts = bits_per_byte(documents, samples=500)
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), rel=0.02)


def test_means_over_seeds_are_by_document() -> None:
    assert mean_documents([[(2.0, 1), (4.0, 2)], [(4.0, 1), (4.0, 2)]]) == ((3.0, 1), (4.0, 2))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(AUNetError, match="the same documents"):
        ratio([(1.0, 2)], [(1.0, 3)])
    with pytest.raises(AUNetError, match="the same documents"):
        mean_documents([[(1.0, 2)], [(1.0, 3)]])
    with pytest.raises(AUNetError, match="at least one byte"):
        bits_per_byte([])
