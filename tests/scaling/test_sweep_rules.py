"""The one rule by which a run may be ended early."""

import json
from pathlib import Path

import pytest

from aunet.scaling.rules import HalfwayRule, last_step, mean_loss
from aunet.scaling.run import Job
from tests.scaling.made_records import config

STEPS = 122
"""Of the made configuration: 1e6 bytes at 8192 a step."""


def job(tmp_path: Path) -> Job:
    return Job.model_validate(
        {
            "family": "made",
            "config": config(out=str(tmp_path)),
            "valid": {"valid": {"path": "valid.jsonl"}},
            "record": tmp_path / "record.json",
        }
    )


def write(tmp_path: Path, steps: int, loss: float, before: float = 9.0) -> None:
    lines = [{"step": k, "train_bits_per_byte": before if k <= 0.45 * STEPS else loss} for k in range(1, steps + 1)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 99')


@pytest.mark.parametrize(("above", "ended"), [(0.3, True), (0.6, False), (None, False)])
def test_a_run_far_above_the_best_at_half_is_ended(tmp_path: Path, above: float | None, ended: bool) -> None:
    rule = HalfwayRule(job(tmp_path), above, lambda: [2.0, 2.4])
    write(tmp_path, 60, 2.5)
    assert rule.look() is None
    assert rule.half is None
    write(tmp_path, 61, 2.5)
    reason = rule.look()
    assert (reason is not None) == ended
    assert "2.5000 bits per byte" in reason if reason else True
    assert rule.half == (None if above is None else pytest.approx(2.5))
    assert rule.look() is None  # it is judged once


def test_the_first_run_has_nothing_to_be_above(tmp_path: Path) -> None:
    write(tmp_path, 70, 2.5)
    rule = HalfwayRule(job(tmp_path), 0.01, list)
    assert rule.look() is None
    assert rule.half == pytest.approx(2.5)


def test_no_file_and_lines_that_are_cut_off(tmp_path: Path) -> None:
    assert last_step(tmp_path / "metrics.jsonl") == 0
    write(tmp_path, 3, 2.0)
    assert last_step(tmp_path / "metrics.jsonl") == 3
    assert mean_loss(tmp_path / "metrics.jsonl", 10, 20) == pytest.approx(9.0)


def test_a_run_that_logged_nothing_before_its_half_is_not_ended(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 100, "train_bits_per_byte": 9.0}) + "\n")
    rule = HalfwayRule(job(tmp_path), 0.1, lambda: [2.0])
    assert rule.look() is None
    assert rule.half is None
