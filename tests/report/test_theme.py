import re

import pytest

from aunet.report import colours
from aunet.report.theme import theme


def _both(name: str) -> tuple[str, str]:
    """The light and the dark form of a property."""
    ((light, dark),) = re.findall(rf"--{name}: light-dark\((#\w{{6}}), (#\w{{6}})\);", theme())
    return light, dark


@pytest.mark.parametrize("ink", ["ink", "muted", "accent", "second"])
@pytest.mark.parametrize("ground", ["paper", "faint"])
def test_words_can_be_read_on_paper(ink: str, ground: str) -> None:
    for pair in zip(_both(ink), _both(ground), strict=True):
        assert colours.contrast(pair) >= 4.5


@pytest.mark.parametrize("hue", range(4))
def test_lines_can_be_seen_on_paper(hue: int) -> None:
    for pair in zip(_both(f"line-{hue}"), _both("paper"), strict=True):
        assert colours.contrast(pair) >= 3


def test_tones_are_those_of_the_terminal() -> None:
    (ink, ground), (dark_ink, dark_ground) = colours.UNITS_LIGHT[2][1], colours.UNITS_DARK[2][1]
    assert (_both("unit-2-1-ink"), _both("unit-2-1")) == ((ink, dark_ink), (ground, dark_ground))
    assert _both("bits-5") == (colours.HEAT_LIGHT[5][1], colours.HEAT_DARK[5][1])
