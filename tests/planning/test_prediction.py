"""What a plan says of a run: volumes by hand, choices that fit, lines that a reader can act on."""

import json

import pytest

from aunet.model.aunet import AUNet
from aunet.model.flops import useful_flops_per_byte
from aunet.planning.gpus import GPUS, gpu
from aunet.planning.prediction import Prediction, predict
from aunet.planning.traffic import Cluster, traffic, weights_by_stage
from aunet.presets import load_run
from tests.runs import done, refused

BF16 = "train.precision=bf16"


def plan(*overrides: str, gpus: int = 8, name: str = "H100", mfu: float | None = None) -> Prediction:
    return predict(load_run("aunet3-2m", [BF16, "train.batch_bytes=65536", *overrides]), gpus, name, mfu=mfu)


def test_volumes_are_those_of_rings_over_what_is_cut_up() -> None:
    model = AUNet.on_meta(load_run("aunet3-2m").model)
    alone, rest = weights_by_stage(model)
    total = 4 * sum(p.numel() for p in model.parameters())
    assert sum(alone) + sum(rest) == total
    assert rest[1:] == [0, 0], "the embedding, the last norm and the head are the byte stage's"

    found = traffic(model, Cluster(GPUS["H100"], 8, 8), copies=1, accumulate=3)
    assert sum(s.all_gather for s in found.stages) == pytest.approx(3 * (2 * sum(alone) + sum(rest)) * 7 / 8)
    assert sum(s.reduce_scatter for s in found.stages) == pytest.approx(total * 7 / 8)
    assert sum(s.all_reduce for s in found.stages) == 0

    copies = traffic(model, Cluster(GPUS["H100"], 8, 8), copies=8, accumulate=1)
    assert sum(s.all_gather + s.reduce_scatter for s in copies.stages) == 0
    assert sum(s.all_reduce for s in copies.stages) == pytest.approx(2 * total * 7 / 8)


def test_groups_within_a_machine_have_its_links_and_others_its_network() -> None:
    kind = GPUS["A100"]
    cluster = Cluster(kind, 32, 8)
    assert cluster.rate(8, 1) == kind.link
    assert cluster.rate(32, 1) == min(kind.link, 8 * kind.network)
    assert cluster.rate(4, 8) == kind.network, "copies that stand one in each machine"
    assert cluster.rate(2, 4) == kind.link


def test_more_gpus_take_less_memory_each_and_less_time() -> None:
    few, many = plan(gpus=2), plan(gpus=16)
    assert many.as_given.memory.total < few.as_given.memory.total
    assert many.as_given.memory.weights == pytest.approx(few.as_given.memory.weights / 8, rel=0.01)
    assert many.as_given.compute_seconds < few.as_given.compute_seconds
    assert plan(mfu=0.7).as_given.compute_seconds == pytest.approx(plan(mfu=0.35).as_given.compute_seconds / 2)


@pytest.mark.parametrize("splitter", ["word1+word2", "fixed-4+fixed-5000"])
def test_flops_are_those_of_the_run_also_where_units_are_longer_than_a_row(splitter: str) -> None:
    run = load_run("aunet3-2m", [f"model.splitter={splitter}"])
    found = plan(f"model.splitter={splitter}", gpus=1, mfu=1.0)
    step = found.batch_bytes * useful_flops_per_byte(run.model, run.data.seq_len)
    assert found.useful_flops_per_step == pytest.approx(step)
    assert found.as_given.compute_seconds == pytest.approx(step / found.flops_per_second)


def test_one_gpu_exchanges_nothing() -> None:
    found = plan(gpus=1).as_given
    assert (found.exchange_seconds, found.memory.gathered) == (0.0, 0)


def test_gradients_are_whole_while_micro_batches_are_added_up() -> None:
    once, twice = plan().as_given.memory, plan("train.accumulate=2").as_given.memory
    assert twice.gradients == pytest.approx(8 * once.gradients, rel=0.01)
    assert twice.activations < 0.6 * once.activations


def test_the_choice_that_is_taken_fits_and_recomputes_only_where_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan().taken.recompute == ()
    needed = plan(gpus=1).as_given.memory.total
    for share, recomputed in ((0.9, 1), (0.01, 3)):
        small = GPUS["H100"].__class__("tiny", 1e12, share * needed, 1e9, 1e9, "made up")
        monkeypatch.setitem(GPUS, "tiny", small)
        found = plan(gpus=1, name="tiny")
        assert not found.as_given.fits
        assert len(found.taken.recompute) == recomputed
        assert found.taken.fits == (share == 0.9)
        assert found.taken.memory.total < needed
        assert found.taken.compute_seconds > found.as_given.compute_seconds


def test_expected_days_follow_from_the_step() -> None:
    found = plan()
    assert found.days == pytest.approx(found.steps * found.batch_bytes / found.bytes_per_second / 86400)
    work = found.useful_flops_per_step / found.gpus / (GPUS["H100"].flops * found.mfu)
    assert found.taken.compute_seconds == pytest.approx(work, rel=0.01)


def test_the_command_prints_what_json_holds() -> None:
    arguments = ("plan", "--gpus", "8", "--gpu", "h100", "aunet3-2m", BF16, "train.batch_bytes=65536")
    shown, values = done(*arguments), json.loads(done(*arguments, "--json"))
    assert f"{values['bytes_per_second']:,.0f} bytes/s on 8 H100" in shown
    assert "assumed: nothing was measured on GPUs" in shown
    assert {part["part"] for part in values["activations"]} >= {"contract", "pool", "trunk", "upsample", "head"}
    assert values["taken"]["memory"]["total"] > values["taken"]["memory"]["activations"]


def test_memory_is_that_of_what_is_planned_for_wherever_the_run_is_configured() -> None:
    here, there = (plan(f"train.device={device}", gpus=1, name="cpu", mfu=0.5) for device in ("cpu", "cuda"))
    assert here.as_given.memory == there.as_given.memory


def test_this_machine_can_be_planned_for() -> None:
    values = json.loads(done("plan", "--gpu", "cpu", "aunet3-2m", "--json"))
    assert values["flops_per_second"] > 1e9
    assert gpu("cpu").memory == values["gpu"]["memory"]


@pytest.mark.parametrize(("name", "known"), [("h100", "H100"), ("CPU", "cpu"), ("rtx4090", "RTX4090")])
def test_names_are_known_however_they_are_spelled(name: str, known: str) -> None:
    assert gpu(name).name == known


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--gpu", "H1000", "aunet3-2m"], "--gpu: 'H1000' is not known; did you mean H100? known: A100-40, A100, H100"),
        (["aunet3-2m"], "train.precision"),
        (["--mfu", "40", "aunet3-2m", BF16], "--mfu: 40 is not a share"),
        (["--gpus", "4", "aunet3-2m", BF16], "train.batch_bytes: a step of 2 rows is too small for 4 processes"),
        (["--gpus", "4", "aunet3-2m", BF16, "train.copies=3"], "train.copies: 4 processes cannot hold 3 copies"),
        (["aunet3-3m"], "no preset"),
    ],
)
def test_what_cannot_be_planned_is_one_line(arguments: list[str], named: str) -> None:
    assert named in refused("plan", *arguments)
