from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aunet.report import colours

PAIRS = [
    *(pair for tones in (*colours.UNITS_LIGHT, *colours.UNITS_DARK) for pair in tones),
    *colours.HEAT_LIGHT,
    *colours.HEAT_DARK,
]


@pytest.mark.parametrize("pair", PAIRS)
def test_ink_can_be_read_on_its_ground(pair: colours.Pair) -> None:
    assert colours.contrast(pair) >= 4.5


@pytest.mark.parametrize("tones", [*colours.UNITS_LIGHT, *colours.UNITS_DARK])
def test_neighbouring_units_differ_in_lightness(tones: tuple[colours.Pair, colours.Pair]) -> None:
    assert colours.contrast((tones[0][1], tones[1][1])) >= 1.4


@pytest.mark.parametrize(("heat", "sign"), [(colours.HEAT_LIGHT, -1), (colours.HEAT_DARK, 1)])
def test_more_bits_are_further_from_the_ground(heat: tuple[colours.Pair, ...], sign: int) -> None:
    lightness = [sign * colours.luminance(ground) for _, ground in heat]
    assert lightness == sorted(lightness)
    assert all(colours.contrast((a[1], b[1])) > 1.1 for a, b in pairwise(heat))


@given(st.floats(0, 100), st.floats(0, 100))
def test_steps_rise_with_bits(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= colours.step(low) <= colours.step(high) < len(colours.LABELS)


def test_every_tone_has_a_label_and_begins_where_it_says() -> None:
    assert len(colours.LABELS) == len(colours.HEAT_LIGHT) == len(colours.HEAT_DARK) == len(colours.BOUNDS) + 1
    written = {"½": "0.5", "8+": "8"}
    starts = [float(written.get(label, label)) for label in colours.LABELS]
    assert [colours.step(start) for start in starts] == list(range(len(colours.LABELS)))
