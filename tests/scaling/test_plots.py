"""Figures hold what is drawn in them, however many families there are."""

import itertools
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aunet.scaling.plots import SIZES, apart, by_size, draw
from aunet.scaling.selection import cells
from tests.scaling.made_records import record

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

MANY = [f"a-system-with-a-long-name-{i:02d}" for i in range(40)]


@given(st.lists(st.floats(-1, 11), min_size=1, max_size=60).map(sorted))
def test_labels_stay_inside_in_order_and_a_line_apart(heights: list[float]) -> None:
    places = apart(heights, 0.0, 10.0)
    assert len(places) == len(heights)
    assert all(-1e-9 <= place <= 10 + 1e-9 for place in places)
    gap = 10.0 / max(20, len(heights))
    assert all(after - before >= gap - 1e-9 for before, after in itertools.pairwise(places))


@given(st.floats(0, 10))
def test_a_label_with_room_stays_where_it_belongs(height: float) -> None:
    assert apart([height], 0.0, 10.0) == [height]


def test_all_names_of_many_families_lie_on_the_figure() -> None:
    runs = [record(name, 2.0 + 0.001 * i, family=name) for i, name in enumerate(MANY)]
    for name, text in draw(runs, "valid").items():
        root = ET.fromstring(text)
        left, top, width, height = map(float, (root.get("viewBox") or "").split())
        found = {}
        for element in root.iter("{http://www.w3.org/2000/svg}text"):
            place = re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", element.get("transform") or "")
            x, y = place.groups() if place else (element.get("x", "nan"), element.get("y", "nan"))
            found[element.text] = float(x), float(y)
        assert set(MANY) <= set(found), name
        for family in MANY:
            x, y = found[family]
            assert left <= x <= left + width - 100, (name, family)  # its letters need about so much
            assert top <= y <= top + height, (name, family)


@pytest.mark.parametrize("name", [r"$\\cost$", "中文"])
def test_a_name_is_no_formula_and_may_be_of_any_script(name: str, recwarn: pytest.WarningsRecorder) -> None:
    for text in draw([record(family=name)], "valid").values():
        assert name in {element.text for element in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")}
    assert not [one for one in recwarn if "Glyph" in str(one.message)]


def test_of_models_of_one_size_the_best_is_shown() -> None:
    """They may differ in a window, which has no parameters."""
    good = record("good", 2.0)
    other = {**good.config, "model": {**good.config["model"], "rope_theta": 1e4}}
    poor = record("poor", 2.5, config=other)
    _, parameters = SIZES[0]
    for runs in ([good, poor], [poor, good]):
        assert by_size(cells(runs), parameters, "valid") == {good.parameters: 2.0}
