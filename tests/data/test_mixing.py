import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aunet.config import DataConfig, SourceConfig
from aunet.data.mixing import RoundRobin, Schedule, assign, shares
from aunet.errors import ConfigError


def config(*weights, temperature=None):
    sources = tuple(SourceConfig(path=f"{i}.txt", weight=weight) for i, weight in enumerate(weights))
    return DataConfig(sources=sources, temperature=temperature)


def test_shares_by_size():
    assert shares(config(None, None), [30, 10]) == [0.75, 0.25]


def test_shares_by_weight():
    assert shares(config(1, 3), [1e9, float("nan")]) == [0.25, 0.75]


@pytest.mark.parametrize(("temperature", "expected"), [(1, [0.9, 0.1]), (2, [0.75, 0.25]), (1e9, [0.5, 0.5])])
def test_shares_by_temperature(temperature, expected):
    assert shares(config(None, None, temperature=temperature), [9e12, 1e12]) == pytest.approx(expected)


def test_a_low_temperature_does_not_overflow():
    assert shares(config(None, None, temperature=0.01), [2e12, 1.9e12]) == pytest.approx([0.9941, 0.0059], abs=1e-4)


@pytest.mark.parametrize(
    ("mixture", "sizes", "key"),
    [
        (config(1, 1e-300), [1, 1], "data.sources.1.weight: 1.txt would never be read, its share"),
        (config(None, None, temperature=0.01), [1, 2e12], "data.temperature: 0.txt would never be read"),
        (config(None, None, temperature=1e-9), [2, 1], "data.temperature: 1.txt would never be read"),
    ],
)
def test_a_share_that_vanishes_is_refused(mixture, sizes, key):
    with pytest.raises(ConfigError) as error:
        shares(mixture, sizes)
    assert str(error.value).startswith(key)
    assert str(error.value).endswith("; raise it")


def test_an_unknown_size_needs_weights():
    with pytest.raises(ConfigError) as error:
        shares(config(None, None), [1.0, float("nan")])
    assert str(error.value) == ("data.sources.1.weight: the size of 1.txt is unknown; give every source a weight")


def test_one_source_needs_no_size():
    assert shares(config(None), [float("nan")]) == [1.0]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=12), st.integers(1, 400))
def test_counts_stay_close_to_the_shares(weights, n):
    choices = RoundRobin(weights)
    expected = np.asarray(weights) / sum(weights)
    for i in range(1, n + 1):
        choices.next()
        # The bound of the theory is below the number of choices; in the middle of a run it is a row or two.
        assert np.abs(choices.counts - expected * i).max() <= max(1, len(weights) / 2)


@given(
    st.lists(st.lists(st.floats(0.1, 9), min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(0, 60),
    st.integers(1, 60),
)
def test_a_schedule_goes_on_from_its_counts(lane_sizes, before, after):
    weights = [sum(sizes) for sizes in lane_sizes]
    whole = Schedule(weights, lane_sizes)
    for _ in range(before):
        whole.next()
    resumed = Schedule(weights, lane_sizes, whole.counts())
    assert [whole.next() for _ in range(after)] == [resumed.next() for _ in range(after)]


def test_lanes_take_turns_by_size():
    schedule = Schedule([0.5, 0.5], [[1, 1], [3, 1]])
    for _ in range(80):
        schedule.next()
    assert schedule.counts() == [[20, 20], [30, 10]]


def test_workers_get_lanes_of_about_equal_weight():
    assert assign([1, 1, 1, 1], 2) == [0, 1, 0, 1]
    assert assign([5, 1, 1, 1, 1, 1], 2) == [0, 1, 1, 1, 1, 1]
    assert assign([2, 1], 1) == [0, 0]
