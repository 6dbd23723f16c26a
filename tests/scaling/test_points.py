"""The quasi-random points of a sweep."""

import math

from aunet.scaling.points import sobol_point

LR, BATCH = (1e-4, 1e-2), (512.0, 65536.0)


def test_points_depend_on_seed_and_index_only() -> None:
    first = [sobol_point(LR, BATCH, 3, i) for i in range(4)]
    assert first == [sobol_point(LR, BATCH, 3, i) for i in range(4)]
    assert first != [sobol_point(LR, BATCH, 4, i) for i in range(4)]
    assert len(set(first)) == 4


def test_each_quarter_of_each_log_range_has_a_quarter_of_the_points() -> None:
    points = [sobol_point(LR, BATCH, 0, i) for i in range(8)]
    for values, (low, high) in (([lr for lr, _ in points], LR), ([b for _, b in points], BATCH)):
        quarters = [int(4 * math.log(value / low) / math.log(high / low)) for value in values]
        assert sorted(quarters) == [0, 0, 1, 1, 2, 2, 3, 3]
