import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aunet.report.curve import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    curve_svg,
    decades,
    rounds,
)

NUMBERS = st.floats() | st.floats(0, 10) | st.sampled_from([8.0, 8192.0])
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20)


def _tree(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def _of(svg: str, kind: str) -> list[tuple[float, float]]:
    """Pixels of the vertices of a curve."""
    paths = [element.get("d", "") for element in _tree(svg).iter("path") if element.get("class") == kind]
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", paths[0])] if paths else []


def _labels(svg: str) -> list[str]:
    return [element.text or "" for element in _tree(svg).iter("text")]


@given(POINTS, POINTS, st.lists(st.tuples(st.text(max_size=5), NUMBERS), max_size=4))
def test_any_points_give_a_figure_inside_its_frame(
    train: list[tuple[float, float]], valid: list[tuple[float, float]], lines: list[tuple[str, float]]
) -> None:
    printable = [(name if name.isprintable() else "?", value) for name, value in lines]
    svg = curve_svg(train, valid, printable)
    assert not re.search(r'"[^"]*(nan|inf)[^"]*"', svg)
    for kind in ("train", "valid"):
        for x, y in _of(svg, kind):
            assert LEFT - 1 <= x <= WIDTH - RIGHT + 1
            assert TOP - 1 <= y <= HEIGHT - BOTTOM + 1


def test_no_point_is_said() -> None:
    assert "No step was recorded" in curve_svg([], [])
    assert "No step was recorded" in curve_svg([(0, 8.0), (1e3, math.nan)], [(1e3, math.inf)], [("gzip", 2.0)])


def test_one_point_is_a_dot_in_the_middle() -> None:
    svg = curve_svg([(1000, 8.0)], [])
    (circle,) = [element for element in _tree(svg).iter("circle") if element.get("class") == "train"]
    assert float(circle.get("cx", "")) == pytest.approx((LEFT + WIDTH - RIGHT) / 2, abs=1)


def test_curves_fall_where_bits_fall_and_run_to_the_right() -> None:
    points = [(8192.0 * k, 8 / k**0.3) for k in range(1, 50)]
    pixels = _of(curve_svg(points, points[::10]), "train")
    assert pixels == sorted(pixels)
    assert [y for _, y in pixels] == sorted(y for _, y in pixels)


def test_validation_points_are_dots_with_their_values() -> None:
    svg = curve_svg([(1e4, 6.0), (1e6, 2.0)], [(1e5, 3.25), (1e6, 2.125)])
    titles = [element.text for element in _tree(svg).iter("title")]
    assert titles == ["3.25 bits per byte after 100k bytes", "2.12 bits per byte after 1M bytes"]


def test_axes_have_names_and_ticks() -> None:
    labels = _labels(curve_svg([(1e4, 8.0), (1e6, 2.0)], [(1e6, 2.1)]))
    assert {"bytes read", "bits per byte", "training rows", "held-out documents"} <= set(labels)
    assert {"10k", "100k", "1M"} <= set(labels)
    assert {"3", "4", "5", "6", "7"} <= set(labels)


def test_huge_values_get_a_logarithmic_axis() -> None:
    labels = _labels(curve_svg([(1e4, 1e30), (1e6, 2.0)], []))
    assert any("e+" in label for label in labels)


def test_many_points_are_averaged_and_both_ends_stay() -> None:
    points = [(float(k), 5.0 + (-1) ** k) for k in range(1, 50_001)]
    pixels = _of(curve_svg(points, []), "train")
    assert 100 < len(pixels) <= MOST_POINTS + 1
    assert pixels[0][0] == pytest.approx(LEFT, abs=1)
    assert pixels[-1][0] == pytest.approx(WIDTH - RIGHT, abs=1)
    # Neighbours 4 and 6 average to 5 wherever many of them share a place.
    assert abs(pixels[-1][1] - pixels[-2][1]) < 5


def test_labels_of_references_are_escaped_apart_and_inside() -> None:
    names = ["gzip", "xz", "<b>", "d", "e"]
    svg = curve_svg([(1e4, 8.0), (1e6, 2.0)], [], [(name, 1.99 + k / 1000) for k, name in enumerate(names)])
    assert "<b>" not in svg
    found = [element for element in _tree(svg).iter("text") if element.text in names]
    places = sorted(float(element.get("y", "")) for element in found)
    assert len(places) == len(names)
    assert min(b - a for a, b in pairwise(places)) >= 14
    assert places[-1] <= HEIGHT - BOTTOM


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
def test_round_ticks_are_few_ordered_and_inside(low: float, ratio: float) -> None:
    size = ratio * max(abs(low), 1.0)
    ticks = rounds(low, low + size)
    assert 1 <= len(ticks) <= 9
    assert ticks == sorted(ticks)
    assert low - size * 0.01 <= ticks[0]
    assert ticks[-1] <= low + size * 1.01


@given(st.floats(1e-9, 1e12), st.floats(1.01, 1e9))
def test_decades_are_few_ordered_and_inside(low: float, ratio: float) -> None:
    ticks = decades(low, low * ratio)
    assert 1 <= len(ticks) <= 11
    assert ticks == sorted(ticks)
    assert low * 0.999 <= ticks[0]
    assert ticks[-1] <= low * ratio * 1.001


def test_an_axis_maps_its_ends() -> None:
    axis = Axis(10, 1000, 0, 200, log=True)
    assert [round(axis.at(value)) for value in (10, 100, 1000)] == [0, 100, 200]
