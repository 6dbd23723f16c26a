"""The plan of a run and its learning rate."""

import dataclasses
from typing import Any

import pytest

from aunet.config import RunConfig
from aunet.errors import ConfigError
from aunet.model.flops import flops_per_byte
from aunet.paper_laws import LAWS
from aunet.presets import load_run
from aunet.train.plan import Plan, learning_rate, make_plan


def _run(seq_len: int = 100, **train: Any) -> RunConfig:
    stages = [{"dim": 16, "layers": 1, "head_dim": 8, "window": 8}, {"dim": 32, "layers": 1, "head_dim": 8}]
    values = {"model": {"stages": stages, "splitter": "word1"}, "data": {"seq_len": seq_len}, "train": train}
    return RunConfig.model_validate(values)


GIVEN = {"lr": 1e-3, "batch_bytes": 1000}
FLOPS = flops_per_byte(_run().model, 100)


@pytest.mark.parametrize(
    "length", [{"steps": 50}, {"bytes": 50_000}, {"compute": 50_000 * FLOPS}, {"gamma": 50_000 / FLOPS / 20.79}]
)
def test_four_ways_to_say_the_same_length(length: dict[str, float]) -> None:
    plan = make_plan(_run(**GIVEN, **length))
    assert plan == Plan(
        steps=50,
        rows_per_step=10,
        batch_bytes=1000,
        lr=1e-3,
        lr_floor=1e-5,
        warmup_steps=5,
        bytes=50_000,
        flops_per_byte=FLOPS,
        compute=pytest.approx(50_000 * FLOPS),
        gamma=pytest.approx(50_000 / FLOPS / 20.79),
    )


def test_gamma_of_a_model_over_tokens_is_not_converted() -> None:
    run = load_run("transformer-bpe-1b")
    plan = make_plan(run)
    assert plan.gamma == pytest.approx(plan.bytes / plan.flops_per_byte)
    again = make_plan(load_run("transformer-bpe-1b", [f"train.gamma={plan.gamma}"]))
    assert again.steps == pytest.approx(plan.steps, rel=1e-3)


def test_a_run_without_a_length_names_the_keys() -> None:
    with pytest.raises(ConfigError, match=r"set one of train\.steps, train\.bytes, train\.compute, train\.gamma"):
        make_plan(_run(**GIVEN))


def test_rows_are_whole_and_at_least_one() -> None:
    assert make_plan(_run(steps=3, lr=1e-3, batch_bytes=1049)).rows_per_step == 10
    assert make_plan(_run(steps=3, lr=1e-3, batch_bytes=7)).rows_per_step == 1
    # The run's bytes stay what was asked for, in steps of the rows that there are.
    assert make_plan(_run(bytes=10_000, lr=1e-3, batch_bytes=7)).steps == 100
    assert make_plan(_run(bytes=1, lr=1e-3, batch_bytes=1000)).steps == 1


def test_micro_batches_need_rows() -> None:
    assert make_plan(_run(steps=3, **GIVEN, accumulate=10)).rows_per_step == 10
    with pytest.raises(ConfigError, match=r"train\.accumulate: 11 micro-batches .* train\.batch_bytes 1000 is 10 rows"):
        make_plan(_run(steps=3, **GIVEN, accumulate=11))


@pytest.mark.parametrize(("preset", "unit"), [("aunet2-1e19", "byte"), ("transformer-1e19", "token")])
def test_laws_are_the_default_inside_their_range(preset: str, unit: str) -> None:
    """Those of models over tokens are others: three times the learning rate."""
    without = ["train.lr=null", "train.batch_bytes=null"]
    plan = make_plan(load_run(preset, without))
    assert plan.lr == LAWS[unit].lr(plan.compute)
    assert plan.batch_bytes == pytest.approx(LAWS[unit].batch(plan.compute), rel=0.01)
    # A number of steps leaves the batch to the law too, which depends on the bytes and so on the batch.
    by_steps = make_plan(load_run(preset, [*without, f"train.steps={plan.steps}"]))
    assert abs(by_steps.rows_per_step - plan.rows_per_step) <= 1
    assert by_steps.lr == pytest.approx(plan.lr, rel=0.01)


def test_given_numbers_replace_the_laws() -> None:
    own = make_plan(load_run("aunet2-1e19", ["train.lr=1e-3", "train.batch_bytes=1e6"]))
    assert (own.lr, own.rows_per_step) == (1e-3, 122)


@pytest.mark.parametrize(
    ("train", "missing"),
    [
        ({"compute": 1e13}, r"set train\.lr and train\.batch_bytes"),
        ({"compute": 1e13, "lr": 1e-3}, r"set train\.batch_bytes"),
        ({"steps": 10, "batch_bytes": 1000}, r"set train\.lr"),
        ({"compute": 1e23}, r"set train\.lr and train\.batch_bytes"),
        ({"steps": 10}, r"set train\.lr and train\.batch_bytes"),
    ],
)
def test_laws_outside_their_range_are_refused_in_one_line(train: dict[str, float], missing: str) -> None:
    with pytest.raises(ConfigError, match=missing) as caught:
        make_plan(_run(**train))
    assert "\n" not in str(caught.value)
    assert "1e+18 to 1e+22" in str(caught.value)
    assert make_plan(_run(**{**train, **GIVEN})).lr == 1e-3


def test_the_refusal_tells_what_the_law_would_give() -> None:
    with pytest.raises(ConfigError, match=r"lr 0\.034"):
        make_plan(_run(compute=1e13))


def _plan(steps: int, warmup: float) -> Plan:
    return make_plan(_run(steps=steps, warmup=warmup, **GIVEN))


@pytest.mark.parametrize(("warmup", "steps"), [(0.1, 10), (0, 0), (1, 1), (25, 25), (0.999, 99), (99, 99)])
def test_warmup_is_a_share_or_a_number(warmup: float, steps: int) -> None:
    assert _plan(100, warmup).warmup_steps == steps


def test_warmup_must_end_before_the_run() -> None:
    with pytest.raises(ConfigError, match=r"train\.warmup: 100 steps do not fit before the last of 100"):
        _plan(100, 100)
    with pytest.raises(ConfigError, match="do not fit before the last of 100"):
        _plan(100, 99.6)


@pytest.mark.parametrize(("steps", "warmup"), [(100, 10), (100, 0), (100, 1), (100, 99), (2, 1), (2, 0), (3, 0.5)])
def test_corners_of_the_learning_rate(steps: int, warmup: float) -> None:
    plan = _plan(steps, warmup)
    rates = [learning_rate(plan, step) for step in range(steps)]
    peak = max(plan.warmup_steps - 1, 0)
    assert rates[0] > 0
    assert rates[peak] == max(rates) == plan.lr
    assert rates[-1] == pytest.approx(plan.lr_floor)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_warmup_is_linear_and_the_cosine_passes_its_middle() -> None:
    plan = _plan(102, 2)
    assert learning_rate(plan, 0) == pytest.approx(plan.lr / 2)
    middle = learning_rate(plan, 51)
    assert middle == pytest.approx((plan.lr + plan.lr_floor) / 2)


def test_a_run_of_one_step_uses_the_highest_rate() -> None:
    assert learning_rate(_plan(1, 0.1), 0) == 1e-3


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _plan(10, 0).steps = 3
