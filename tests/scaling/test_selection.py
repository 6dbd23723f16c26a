"""Which runs stand for a family."""

from typing import Any

import pytest

from aunet.errors import AUNetError
from aunet.scaling.records import Record
from aunet.scaling.selection import cells, of_families, settings, valid_set, valid_sets
from tests.scaling.made_records import record


def test_seeds_are_repetitions_and_what_was_repeated_stands() -> None:
    lucky = record("lucky", 1.98, lr=3e-3)
    repeated = [record(f"r{seed}", 2.0 + seed / 100, seed=seed) for seed in (1, 0)]
    (cell,) = cells([lucky, *repeated])
    assert [len(setting.records) for setting in cell.settings] == [1, 2]
    best = cell.best("valid")
    assert best is not None
    assert [r.name for r in best.records] == ["r0", "r1"]
    assert best.loss("valid") == pytest.approx(2.005)
    assert best.documents("valid")[0][1] == 900
    (single,) = cells([lucky, record("worse", 2.1)])
    assert single.best("valid").first.name == "lucky"  # type: ignore[union-attr]


def test_seeds_that_were_scored_on_other_documents_are_named() -> None:
    (cell,) = cells([record("r0"), record("r1", seed=1, documents={"valid": [(4.0, 2)]})])
    with pytest.raises(AUNetError, match="r0, r1 on valid: a mean over runs needs"):
        cell.settings[0].documents("valid")


def test_settings_within_one_per_cent_count_for_the_laws() -> None:
    runs = [record(f"r{i}", bits, lr=1e-3 * (i + 1)) for i, bits in enumerate((2.0, 2.0199, 2.021, 2.5))]
    other_size = {**runs[0].config, "model": {**runs[0].config["model"], "rope_theta": 1e4}}
    (cell,) = cells([record("size", 2.01, config=other_size), *runs])
    assert {setting.first.name for setting in cell.close("valid")} == {"r0", "r1"}  # what is tried twice counts once
    assert cell.tuned == 4


def test_budgets_are_shared_by_families_and_early_ends_join_the_planned_one() -> None:
    runs = [
        record("a", family="a", compute_flops=1e13),
        record("b", family="b", compute_flops=1.15e13),
        record("c", family="a", compute_flops=3e13),
        record("d", family="b", status="failed", reason="nan", compute_flops=1e12, planned_flops=2.9e13),
    ]
    found = cells(runs)
    assert [(cell.family, round(cell.compute / 1e13, 2)) for cell in found] == [
        ("a", 1.07), ("b", 1.07), ("a", 3.0), ("b", 3.0),
    ]  # fmt: skip
    assert [len(cell.unfinished) for cell in found] == [0, 0, 0, 1]
    assert found[3].best("valid") is None
    assert found[3].tuned == 1


def test_what_ended_early_at_a_budget_that_nothing_completed_is_of_no_other() -> None:
    early = [
        record(f"e{i}", status="failed", reason="nan", compute_flops=1e10, planned_flops=planned, lr=0.1 * (i + 1))
        for i, planned in enumerate((0.0, 0.95e15, 1e15, 1.2e13))
    ]
    found = cells([record(), *early])
    assert [(cell.tuned, [r.name for r in cell.unfinished]) for cell in found] == [
        (1, ["e0"]), (2, ["e3"]), (2, ["e1", "e2"]),
    ]  # fmt: skip
    assert [round(cell.compute / 1e13, 1) for cell in found] == [0.0, 1.0, 97.5]
    assert [bool(cell.best("valid")) for cell in found] == [False, True, False]


def test_an_order_of_the_text_is_a_seed_too() -> None:
    def ordered(order: int, **more: Any) -> Record:
        values = record(**more).config
        return record(f"d{order}", 2.0 + order, config={**values, "data": {**values["data"], "seed": order}}, **more)

    (setting,) = settings([ordered(0), ordered(1), ordered(2), ordered(2, seed=1)])
    assert len(setting.records) == 4
    assert setting.loss("valid") == pytest.approx(3.25)


def test_a_setting_is_told_by_its_model_too() -> None:
    one = record("one")
    other = {**one.config, "model": {**one.config["model"], "rope_theta": 1e4}}
    assert len(settings([one, record("two", config=other)])) == 2
    assert len(settings([one, record("three", seed=1)])) == 1


def test_runs_on_another_text_or_with_another_tokenizer_are_no_repetitions() -> None:
    """Whose files had the same names."""
    one = record("one", data_hash={"train": "a", "tokenizer": "t"})
    others = [record("text", data_hash={"train": "b", "tokenizer": "t"}), record("tokens", data_hash={"train": "a"})]
    for seed in (0, 1):
        assert len(settings([one, *(other.model_copy(update={"seed": seed}) for other in others)])) == 3


def test_the_same_run_again_counts_once() -> None:
    (setting,) = settings([record("sweep-003", 2.0), record("again", 2.0), record("other-seed", 2.1, seed=1)])
    assert [r.name for r in setting.records] == ["again", "other-seed"]


def test_sets_are_named_and_unknown_ones_refused() -> None:
    scored = record().documents["valid"]
    both = record("b", bits_per_byte={"x": 2.0, "valid": 2.0}, documents={"x": scored, "valid": scored})
    assert valid_sets([record(), both]) == ["valid", "x"]
    assert valid_set([both], None) == "x"
    with pytest.raises(AUNetError, match="--valid: no record was scored on 'y'; known: valid, x"):
        valid_set([record(), both], "y")
    with pytest.raises(AUNetError, match="no record is of a complete run"):
        valid_set([], None)
    with pytest.raises(AUNetError, match="no record is of a complete run"):
        cells([record(status="failed", reason="nan")])


def test_families_are_chosen_by_patterns_and_one_that_matches_none_is_named() -> None:
    runs = [record(name, family=name) for name in ("aunet-2", "aunet-2-hash", "bpe-4k", "bytes")]
    assert of_families(runs, ()) == tuple(runs)
    assert [run.family for run in of_families(runs, ("aunet-*", "bytes"))] == ["aunet-2", "aunet-2-hash", "bytes"]
    assert [run.family for run in of_families(runs, ("aunet-2",))] == ["aunet-2"]
    with pytest.raises(AUNetError, match=r"^--family: no record is of family 'BPE-4k'; known: aunet-2, aunet-2-hash"):
        of_families(runs, ("bytes", "BPE-4k"))
