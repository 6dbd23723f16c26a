"""The bootstrap over examples: coverage, pairing, seeds, corpus scores."""

import numpy as np
import pytest

from aunet.errors import AUNetError
from aunet.evals.statistics import corpus, difference, mean, mean_of_means, ratio_of_sums


def answers(generator: np.random.Generator, count: int) -> tuple[list[float], list[float]]:
    """Right or wrong of two models, of 60% and 70%: what one gets right the other mostly does too."""
    ease = generator.random(count)
    slips = generator.random(count) < 0.05
    return (ease < 0.6).astype(float).tolist(), np.where(slips, ease < 0.6, ease < 0.7).astype(float).tolist()


def test_intervals_cover_the_truth_as_often_as_they_say_and_pairs_are_narrower() -> None:
    trials, generator = 300, np.random.default_rng(3)
    held = {"mean": 0, "difference": 0, "average": 0}
    widths = {"paired": 0.0, "unpaired": 0.0}
    for k in range(trials):
        worse, better = answers(generator, 150)
        alone, other, paired = (
            mean(worse, seed=k, samples=400),
            mean(better, seed=k, samples=400),
            difference(better, worse, seed=k, samples=400),
        )
        both = mean_of_means([worse, answers(generator, 60)[1]], seed=k, samples=400)
        held["mean"] += alone.low <= 0.6 <= alone.high
        held["difference"] += paired.low <= 0.095 <= paired.high
        held["average"] += both.low <= 0.6475 <= both.high
        widths["paired"] += paired.high - paired.low
        widths["unpaired"] += np.hypot(alone.high - alone.low, other.high - other.low)
    for what, count in held.items():
        assert 0.89 < count / trials < 0.99, what
    assert widths["paired"] < widths["unpaired"] / 2


def test_a_seed_gives_the_same_bounds_and_another_one_others() -> None:
    scores = np.random.default_rng(0).random(50).tolist()
    assert mean(scores, seed=4) == mean(scores, seed=4)
    assert mean(scores, seed=4) != mean(scores, seed=5)


def test_tasks_count_the_same_whatever_their_sizes() -> None:
    assert mean_of_means([[1.0], [0.0] * 99]).value == 0.5


def test_all_wrong_is_a_score_and_equal_models_do_not_differ() -> None:
    found = mean([0.0] * 20)
    assert (found.low, found.value, found.high) == (0, 0, 0)
    scores = [0.0, 1.0, 1.0]
    assert not difference(scores, scores).apart
    assert difference([1.0] * 9, [0.0] * 9).apart


def test_a_ratio_is_of_sums() -> None:
    found = ratio_of_sums(np.array([2.0, 6.0]), np.array([1.0, 1.0]))
    assert (found.low, found.value, found.high) == (2, 4, 6)


def test_corpus_scores_are_of_sums_of_counts() -> None:
    counts = [[1, 2], [0, 2], [2, 2], [1, 4]]
    found = corpus(counts, lambda sums: sums[0] / sums[1])
    assert found.value == 0.4
    assert 0 <= found.low < found.value < found.high <= 1


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(AUNetError, match="the same examples: 1 of one, 2 of the other"):
        difference([1.0], [1.0, 0.0])
    with pytest.raises(AUNetError, match="at least one example"):
        mean([])
