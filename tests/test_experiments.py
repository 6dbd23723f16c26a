"""The race: every system can be planned, an ablation changes what its name says and costs what its base costs."""

from pathlib import Path

import pytest
from rich.console import Console

import race
from aunet.config import AUNetConfig, RunConfig
from aunet.errors import ConfigError
from aunet.model.flops import useful_flops_per_byte
from aunet.scaling.plan import ScalePlan
from aunet.scaling.records import write_record
from systems import KNOWN, SYSTEMS, Tables, with_lookups
from tests.scaling.made_records import config, record

BASE = "aunet-2-hash"
NAMES = [name for name, system in SYSTEMS.items() if system.tuned_as == BASE]


def planned(name: str, compute: float = 1e14) -> tuple[ScalePlan, RunConfig]:
    system = SYSTEMS[name]
    plan = race.plan_of(system, compute, [], Path("runs"), Console())
    return plan, race.config_of(system, plan, ["train.jsonl"], 1, "cpu", Path("runs"))


def test_ablations_are_of_systems_that_are_tuned_themselves() -> None:
    assert {"aunet-2-hash-muon", "aunet-2-hash-up-only", "aunet-2-hash-window", "bpe-1k-hash-qk-norm"} < set(SYSTEMS)
    assert not any(name.startswith("bpe") and name.endswith(("bytes", "only", "heavy")) for name in SYSTEMS)
    for system in SYSTEMS.values():
        assert not system.tuned_as or not SYSTEMS[system.tuned_as].tuned_as


@pytest.mark.parametrize("compute", [1e13, 1e14, 1e15])
@pytest.mark.parametrize("name", NAMES)
def test_an_ablation_costs_what_its_base_costs(name: str, compute: float) -> None:
    (base, _), (plan, config) = planned(BASE, compute), planned(name, compute)
    assert plan.bytes * useful_flops_per_byte(plan.model, plan.seq_len) == pytest.approx(compute)
    if not name.endswith("window"):
        assert plan.flops_per_byte == pytest.approx(
            base.flops_per_byte, rel=0.1 if name.endswith(("wide-bytes", "best", "best-known")) else 1e-9
        )
    # As a file would have it: nothing that only an unchecked copy can hold.
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
    assert config != planned(BASE, compute)[1]


def test_an_ablation_changes_what_its_name_says() -> None:
    base, bytes_stage = planned(BASE)[1], planned(BASE)[1].model.stages[0]
    configs = {name.removeprefix(f"{BASE}-"): planned(name)[1] for name in NAMES}
    assert configs["muon"] == base.model_copy(
        update={"train": base.train.model_copy(update={"optimizer": "muon"})}, deep=True
    )
    assert configs["fixed-init"].train.init == "fixed"
    assert configs["slow-bytes"].train.stage_lr < (1, 1) < configs["fast-bytes"].train.stage_lr
    assert all(stage.qk_norm for stage in configs["qk-norm"].model.stages)
    assert configs["up-only"].model.layers(0) == (0, 2 * bytes_stage.layers)
    assert configs["down-heavy"].model.layers(0) == (2, 0)
    assert configs["window"].model.stages[0].window == 2 * (bytes_stage.window or 0)
    wide = configs["wide-bytes"].model.stages
    assert wide[0].dim == wide[1].dim / 2
    assert wide[0].dim > bytes_stage.dim
    assert [stage.lookup for stage in wide] == [stage.lookup for stage in base.model.stages]
    before, grams, rows = (
        [(lookup.ngrams, lookup.buckets) for lookup in (stage.lookup for stage in config.model.stages) if lookup]
        for config in (base, configs["grams"], configs["rows"])
    )
    assert grams == [((*before[0][0], 8), before[0][1]), ((1, 2), before[1][1])]
    assert rows == [(ngrams, 4 * buckets) for ngrams, buckets in before]


@pytest.mark.parametrize("compute", [3e13, 1e14])
@pytest.mark.parametrize("name", ["aunet-2", "aunet-3"])
def test_a_wide_byte_stage_is_paid_for_by_the_others(name: str, compute: float) -> None:
    plain, wide = (planned(n, compute)[0] for n in (name, f"{name}-wide-bytes"))
    dims = [stage.dim for stage in wide.model.stages]
    assert dims[0] == dims[1] / 2 > plain.model.stages[0].dim
    assert all(dim < stage.dim for dim, stage in zip(dims[1:], plain.model.stages[1:], strict=True))
    assert wide.flops_per_byte == pytest.approx(plain.flops_per_byte, rel=0.1)


@pytest.mark.parametrize("tokenizer", ["", "tokenizer.json"])
def test_known_ngrams_take_no_more_rows(tokenizer: str) -> None:
    stages = [{"dim": 16, "layers": 1, "head_dim": 8}] * (1 if tokenizer else 2)
    splitter = "" if tokenizer else "word1"
    model = AUNetConfig.model_validate({"stages": stages, "splitter": splitter, "tokenizer": tokenizer})
    every = [Tables(), KNOWN, SYSTEMS["aunet-2-hash-best-known"].tables]
    found = [with_lookups(model, ("bytes", "units"), tables).stages for tables in every]
    for plain, known, grown in zip(*found, strict=True):
        assert plain.lookup is not None
        assert known.lookup is not None
        assert grown.lookup is not None
        rows, ours, most = (len(one.ngrams) * one.buckets for one in (plain.lookup, known.lookup, grown.lookup))
        assert 0.999 * rows < ours <= rows
        assert most == 4 * ours
        assert (plain.lookup.known, known.lookup.known, grown.lookup.known) == (False, True, True)


@pytest.mark.parametrize("compute", [3e13, 1e14])
@pytest.mark.parametrize("percent", [25, 50, 75])
def test_layers_are_moved_to_the_deepest_stage(percent: int, compute: float) -> None:
    base, moved = (planned(f"aunet-2{change}", compute)[0] for change in ("", f"-deepest-{percent}"))
    down, up = moved.model.layers(0)
    trunk = moved.model.stages[1]
    assert (down + up + trunk.layers, trunk.layers) == (8, 8 * percent // 100)
    assert trunk.dim == 4 * moved.model.stages[0].dim
    assert moved.flops_per_byte == pytest.approx(base.flops_per_byte, rel=0.1)


def test_settings_come_from_laws_where_three_budgets_give_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    monkeypatch.setattr(race, "RECORDS", tmp_path)

    def search(compute: float, best: float) -> None:
        for i, lr in enumerate((best, 2 * best)):
            name = f"{BASE}-tune-{race.budget(compute)}-{i:03d}"
            spent = {"compute_flops": compute, "planned_flops": compute}
            made = record(name, 2.0 + i, family=BASE, lr=lr, batch=round(2048 * (compute / 1e13) ** 0.5), **spent)
            write_record(tmp_path / race.RACE / f"{name}.json", made)

    system = SYSTEMS[f"{BASE}-muon"]
    with pytest.raises(SystemExit, match="aunet-2-hash: nothing is tuned at 1e13 FLOPs or below"):
        race.tuned(system, 1e13)
    search(1e13, 0.04)
    found = race.tuned(system, 1e13)
    assert (found.lr, found.batch, found.origin) == (0.04, 2048, "the best point of aunet-2-hash at 1e13 FLOPs")
    search(4e13, 0.02)
    found = race.tuned(system, 1.6e14)
    assert found.lr == pytest.approx(0.02 * 4**-0.176, rel=1e-3)
    assert found.batch == pytest.approx(4096 * 4**0.321, rel=1e-3)
    assert found.origin == "the best point of aunet-2-hash at 4e13 FLOPs, moved along the paper's laws"
    search(1.6e14, 0.01)
    found = race.tuned(system, 6.4e14)
    assert found.lr == pytest.approx(0.005, rel=1e-3)
    assert found.batch == pytest.approx(16384, rel=1e-3)
    assert found.origin == "by the laws of the 6 points of aunet-2-hash"


def test_a_run_that_has_begun_keeps_its_settings(tmp_path: Path) -> None:
    there, out = tmp_path / "there.json", tmp_path / "out"
    assert race.begun(there, out) is None
    out.mkdir()
    (out / "run.json").write_text(config(lr=0.03, batch_bytes=4096).model_dump_json())
    assert race.begun(there, out) == race.Tuned(0.03, 4096, "as it began")
    write_record(there, record(lr=0.02, batch=2048))
    assert race.begun(there, out) == race.Tuned(0.02, 2048, "as it began")


def test_budgets_have_names_of_their_own() -> None:
    named = [race.budget(compute) for compute in (9.996e12, 1e13, 1.5e13, 2e13, 3e14)]
    assert named == ["1e13", "1e13", "1.5e13", "2e13", "3e14"]


def test_a_search_moves_with_the_budget_along_the_laws_of_the_paper() -> None:
    """LR and BSZ of AU-Net grow as C^-0.176 and C^0.321, BSZ of BPE as C^0.231."""
    plain, tokens = SYSTEMS["aunet-2"], SYSTEMS["bpe-4k"]
    assert race.searched(plain, 1e13) == race.searched(tokens, 1e13) == (race.LR, race.BATCH)
    (low, high), (small, large) = race.searched(plain, 1e15)
    assert (low, high) == pytest.approx((5e-3 * 100**-0.176, 6e-2 * 100**-0.176))
    assert (small, large) == pytest.approx((2048 * 100**0.321, 16384 * 100**0.321))
    assert race.searched(tokens, 1e15)[1] == pytest.approx((2048 * 100**0.231, 16384 * 100**0.231))


def test_seeds_share_their_settings_and_a_budget_its_own_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although others have been searched since, whose laws would say otherwise."""
    pytest.importorskip("scipy")
    monkeypatch.setattr(race, "RECORDS", tmp_path)
    for compute, lrs in ((1e13, (0.04, 0.02)), (3e13, (0.01, 0.02)), (9e13, (0.005, 0.02))):
        for i, lr in enumerate(lrs):
            name = f"{BASE}-tune-{race.budget(compute)}-{i:03d}"
            made = record(name, 2.0 + i, family=BASE, lr=lr, compute_flops=compute, planned_flops=compute)
            write_record(tmp_path / race.RACE / f"{name}.json", made)
    found = race.tuned(SYSTEMS[f"{BASE}-muon"], 1e13)
    assert (found.lr, found.origin) == (0.04, "the best point of aunet-2-hash at 1e13 FLOPs")
    assert race.tuned(SYSTEMS[BASE], 3e14).origin == "by the laws of the 6 points of aunet-2-hash"
    first, second = (tmp_path / race.RACE / f"{BASE}-1e13-seed{seed}.json" for seed in (0, 1))
    assert race.repeated(second, 1) is None
    write_record(first, record(lr=0.05, batch=4096))
    assert race.repeated(second, 1) == race.Tuned(0.05, 4096, "as it began")


def test_what_would_mix_up_texts_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["race.py", "tune", "1e13", "train.jsonl", "--valid"]
    monkeypatch.setattr("sys.argv", [*command, "n=v.jsonl", "--label", "five"])
    with pytest.raises(SystemExit, match="2"):
        race.main()
    assert "--label: settings are tuned in race alone" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*command, "v.jsonl"])
    with pytest.raises(ConfigError, match=r"--valid: 'v\.jsonl' is not NAME=PATH"):
        race.main()
