"""Fits recover planted laws from noisy runs, and their bands hold what they promise."""

import numpy as np
import pytest

from aunet.errors import AUNetError
from aunet.scaling.laws import budgets, fit_loss, fit_power

FIVE = np.geomspace(1e13, 3e15, 5)


def planted_loss(compute: np.ndarray, noise: float = 0.0, seed: int = 0) -> list[float]:
    clean = 0.8 + 60 * compute**-0.13
    return list(clean * np.exp(noise * np.random.default_rng(seed).standard_normal(len(compute))))


def test_clean_laws_are_recovered() -> None:
    loss = fit_loss(FIVE, planted_loss(FIVE), samples=5)
    assert (loss.E, loss.a, loss.b) == pytest.approx((0.8, 60, 0.13), rel=1e-3)
    power = fit_power(FIVE, list(0.66 * FIVE**0.321))
    assert (power.a, power.b) == pytest.approx((0.66, 0.321))
    assert power.at(1e18) == pytest.approx(0.66 * 1e18**0.321)


def test_intervals_of_power_laws_cover_the_truth_as_often_as_they_say() -> None:
    compute = np.repeat(FIVE, 3)
    trials, held = 300, np.zeros(2)
    for k in range(trials):
        noise = np.random.default_rng(k).standard_normal(len(compute))
        found = fit_power(compute, list(6.6 * compute**-0.176 * np.exp(0.3 * noise)), seed=k)
        assert found.intervals
        low, high = found.intervals["b"]
        held[0] += low <= -0.176 <= high
        low, high = found.band(1e17) or (0, 0)  # beyond the runs
        held[1] += low <= 6.6 * 1e17**-0.176 <= high
    assert (held / trials > 0.9).all()
    assert (held / trials < 0.99).all()


def test_intervals_of_loss_laws_cover_the_truth_about_as_often_as_they_say() -> None:
    """About: the law bends, and the bootstrap takes it for nearly straight."""
    compute = np.repeat(FIVE, 2)
    trials, held = 30, np.zeros(3)
    for k in range(trials):
        found = fit_loss(compute, planted_loss(compute, 0.004, seed=k), seed=k, samples=60)
        assert found.intervals
        truths = {"E": 0.8, "b": 0.13}
        held[:2] += [found.intervals[name][0] <= true <= found.intervals[name][1] for name, true in truths.items()]
        low, high = found.band(3e15) or (0, 0)
        held[2] += low <= 0.8 + 60 * 3e15**-0.13 <= high
    assert (held / trials > 0.75).all()


def test_one_bad_run_does_not_bend_the_law() -> None:
    compute = np.repeat(FIVE, 3)
    losses = planted_loss(compute, 0.002)
    losses[4] *= 1.3
    found = fit_loss(compute, losses, samples=1)
    assert found.at(1e14) == pytest.approx(0.8 + 60 * 1e14**-0.13, rel=0.01)


def test_few_budgets_get_a_law_without_a_floor_and_it_says_so() -> None:
    compute = np.array([1e13, 3e13, 1e14])
    found = fit_loss(compute, list(60 * compute**-0.1), samples=5)
    assert (found.kind, found.E) == ("a C^-b", 0.0)
    assert (found.a, found.b) == pytest.approx((60, 0.1), rel=1e-4)
    given = fit_loss(compute, list(0.8 + 60 * compute**-0.13), irreducible=0.8, samples=5)
    assert given.kind == "E + a C^-b, E given"
    assert given.b == pytest.approx(0.13, rel=1e-4)
    assert given.intervals
    assert given.intervals["E"] == (0.8, 0.8)


def test_as_many_parameters_as_runs_leave_no_band() -> None:
    assert fit_power([1e13, 1e14], [1.0, 2.0]).intervals is None
    found = fit_loss([1e13, 1e14], [2.0, 1.8])
    assert found.band(1e15) is None
    assert found.at(1e14) == pytest.approx(1.8, rel=1e-4)


def test_one_budget_and_an_impossible_floor_are_refused_in_one_line() -> None:
    for fit in (fit_power, fit_loss):
        with pytest.raises(AUNetError, match="a law needs runs at 2 budgets at least, these are of 1"):
            fit([1e13, 1.1e13], [2.0, 1.9])
    with pytest.raises(AUNetError, match=r"--irreducible: 3 is not between 0 and the lowest loss, 1.8"):
        fit_loss([1e13, 1e14], [2.0, 1.8], irreducible=3)


def test_runs_close_together_are_one_budget() -> None:
    assert budgets([1e13, 1.2e13, 2e13, 0.97e13]) == [0, 0, 1, 0]
    assert budgets([]) == []


def test_a_steep_law_holds_at_its_budgets() -> None:
    """Whose value at C = 1 is no float above 0."""
    law = fit_power([1e13, 1.3e13], [1e-5, 1e-1])
    assert law.a == 0
    assert [law.at(compute) for compute in (1e13, 1.3e13)] == pytest.approx([1e-5, 1e-1])
