"""Laws of families from their records."""

import io
import json
import math
from functools import cache

import pytest
from rich.console import Console

from aunet.errors import AUNetError, ConfigError
from aunet.scaling.fit import Fit, fit_records, table
from aunet.scaling.records import Record
from aunet.scaling.tables import laws
from tests.scaling.made_records import record
from tests.scaling.planted import BATCH_LAW, FAMILIES, LR_LAW, SHIFT, race

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@cache
def fitted() -> Fit:
    return fit_records(race())


@pytest.mark.parametrize("family", FAMILIES)
def test_planted_laws_are_recovered(family: str) -> None:
    of = fitted().of(family)
    E, a, b = FAMILIES[family]
    assert of.loss
    assert of.batch
    assert of.lr
    assert of.loss.kind == "E + a C^-b"
    assert of.loss.intervals
    assert of.loss.intervals["b"][0] < b < of.loss.intervals["b"][1]
    # The best of several settings is not quite at the planted optimum, hence a little above the planted law.
    assert of.loss.at(1e14) == pytest.approx(E + a * 1e14**-b, rel=0.02)
    for law, (scale, exponent), shift in ((of.batch, BATCH_LAW, SHIFT[family]), (of.lr, LR_LAW, 1 / 8)):
        assert abs(math.log(law.at(1e14) / (shift * scale * 1e14**exponent))) < math.log(1.6)
        assert law.intervals
        assert law.intervals["b"][0] < exponent < law.intervals["b"][1]


def test_values_are_json_with_bounds_and_a_value_at_the_largest_budget() -> None:
    values = fitted().to_json()
    assert values["reference"] == pytest.approx(1e15, rel=0.05)
    assert list(values["families"]) == sorted(FAMILIES)
    law = values["families"]["aunet-2"]["loss"]
    assert law["intervals"]["b"][0] < law["b"] < law["intervals"]["b"][1]
    assert law["band_at_reference"][0] < law["at_reference"] < law["band_at_reference"][1]


def test_a_law_that_no_float_holds_is_json_and_any_name_is_shown(recwarn: pytest.WarningsRecorder) -> None:
    runs = [
        record(f"r{i}{j}", 2.0 - (i + j / 100) / 10, family="a[/b]", compute_flops=1e13 * 1.3**i, lr=j / 1e3**i)
        for i in range(3)
        for j in (1, 2)
    ]
    fit = fit_records(runs)
    (values,) = fit.to_json()["families"].values()
    assert values["lr"]["a"] is None
    assert values["lr"]["intervals"]["a"][1] is None
    assert values["lr"]["at_reference"] == pytest.approx(1.4e-6, rel=0.1)
    json.dumps(values, allow_nan=False)
    Console(file=(shown := io.StringIO()), width=300).print(table(fit))
    assert "a[/b]" in shown.getvalue()
    assert not recwarn.list


def test_laws_may_be_of_paper_flops() -> None:
    runs = [record(f"r{i}", 2.0 - i / 10, compute_flops=c, paper_flops=c / 2) for i, c in enumerate((1e13, 1e14))]
    useful, paper = (fit_records(runs, flops=flops).of("made").loss for flops in ("useful", "paper"))
    assert useful
    assert paper
    assert useful.at(1e13) == pytest.approx(paper.at(5e12))
    with pytest.raises(ConfigError, match="--flops: 'all' is not one of useful, paper"):
        fit_records(runs, flops="all")


def test_what_limits_a_law_is_said() -> None:
    fit = fit_records([record("a", 2.0), record("b", 1.8, compute_flops=1e14)])
    (of,) = fit.families
    assert of.lr is None
    assert of.notes == (
        "2 budgets tell no irreducible loss: E is taken to be 0",
        "no more budgets than parameters: the loss law has no band",
        "learning rate and batch size were searched at fewer than two budgets: no laws of them",
    )
    assert "move together. made: 2 budgets tell no irreducible loss" in laws(fit).note, "by the family's own name"
    swept = [
        record(f"{c:g}-{i}", 2.0 - i / 10, compute_flops=c, lr=1e-3 * 2**i, batch=8192 * 2 ** (i % 2))
        for c in (1e13, 1e14)
        for i in range(3)
    ]
    (of,) = fit_records(swept).families
    note = "at 1e+13 FLOPs the best learning rate, 0.004, is the highest tried"
    assert note in of.notes
    beyond = record("beyond", status="failed", reason="the loss is nan", compute_flops=1e12, planned_flops=1e13, lr=0.1)
    (of,) = fit_records([*swept, beyond]).families
    assert note not in of.notes


def test_a_family_whose_budgets_lie_close_together_leaves_the_others_their_laws() -> None:
    """Two budgets of all may be one of a family, at the end of the first and the beginning of the second."""
    apart = [record(f"a{i}", 2.0 - i / 10, family="apart", compute_flops=c) for i, c in enumerate((1e13, 3e13))]
    close = [record(f"c{i}", 2.0 - i / 10, family="close", compute_flops=c) for i, c in enumerate((1.24e13, 1.26e13))]
    found = fit_records([*apart, *close])
    assert found.of("apart").loss
    assert found.of("close").loss is None
    assert found.of("close").notes[0].startswith("one budget")


def test_budgets_that_are_one_in_paper_flops_give_no_law_of_them() -> None:
    def searched(compute: float, paper: float) -> list[Record]:
        return [
            record(f"{compute:g}-{lr}", 2.0 - compute / 1e14, compute_flops=compute, paper_flops=paper, lr=lr)
            for lr in (1e-3, 2e-3)
        ]

    runs = [*searched(1e13, 1e13), *searched(1.3e13, 1.2e13)]
    assert fit_records(runs).of("made").lr
    with pytest.raises(AUNetError, match="no law can be fitted: made: one budget"):
        fit_records(runs, flops="paper")


def test_one_budget_is_one_clear_line() -> None:
    with pytest.raises(
        AUNetError, match=r"no law can be fitted: made: one budget, 1e.13 FLOPs; a law needs runs at two"
    ):
        fit_records([record("a"), record("b", lr=2e-3)])
