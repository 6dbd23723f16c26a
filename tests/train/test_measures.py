"""What a run measures of itself, in one process and in two."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from aunet.model.aunet import AUNet
from aunet.presets import load_run
from aunet.train import measures
from aunet.train.distributed import ALONE
from aunet.train.measures import Interval, gradient_norms, peak_rate
from tests.ranks import together
from tests.runs import done, metrics, write_config

KEYS = {"interval_bytes_per_second", "bytes_per_second_by_rank", "data_wait_share", "mfu", "peak_rss"}
CPU = torch.device("cpu")


def logged(out: Path) -> list[dict[str, object]]:
    return [line for line in metrics(out) if "loss" in line]


def test_a_run_measures_itself_at_every_line(tmp_path: Path) -> None:
    done("train", write_config(tmp_path, log_every=4, steps=10))
    lines = logged(tmp_path / "out")
    assert [line["step"] for line in lines] == [4, 8, 10]
    for line in lines:
        assert line.keys() >= KEYS
        assert 0 < line["mfu"] < 1
        assert 0 <= line["data_wait_share"] <= 1
        assert line["bytes_per_second_by_rank"] == [round(line["interval_bytes_per_second"])]
        assert math.hypot(*line["stage_grad_norm"]) == pytest.approx(line["grad_norm"], rel=1e-5)
        assert line["peak_rss"] > 2**26
    assert "peak_allocated" not in lines[0], "of CUDA only"
    # The intervals together are the run.
    spans = [lines[0]["seconds"], *(b["seconds"] - a["seconds"] for a, b in itertools.pairwise(lines))]
    read = sum(line["interval_bytes_per_second"] * span for line, span in zip(lines, spans, strict=True))
    assert read == pytest.approx(lines[-1]["bytes"], rel=1e-6)


def test_metrics_of_an_older_version_are_continued(tmp_path: Path) -> None:
    config = write_config(tmp_path, steps=4)
    done("train", config)
    path = tmp_path / "out" / "metrics.jsonl"
    old = [{k: v for k, v in line.items() if k not in KEYS} for line in metrics(tmp_path / "out") if "loss" in line]
    path.write_text("".join(json.dumps({**line, "data_wait": 0.1}) + "\n" for line in old))
    (tmp_path / "out" / measures.PEAK).unlink()
    done("train", config, "train.steps=6")
    assert [line.keys() >= KEYS for line in logged(tmp_path / "out")] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("copies", [1, 2])
def test_ranks_are_measured_together(tmp_path: Path, copies: int) -> None:
    config = write_config(tmp_path, steps=6, log_every=3, batch_bytes=2048, checkpoint_every=50)
    done("train", config, f"train.out={tmp_path / 'one'}")
    together(2, ("train", config, f"train.copies={copies}"))
    for ours, alone in zip(logged(tmp_path / "out"), logged(tmp_path / "one"), strict=True):
        assert ours["stage_grad_norm"] == pytest.approx(alone["stage_grad_norm"], abs=1e-4)
        by_rank = ours["bytes_per_second_by_rank"]
        assert len(by_rank) == 2
        assert sum(by_rank) == pytest.approx(ours["interval_bytes_per_second"], abs=2)
        assert 0 < ours["mfu"] < 1


def test_norms_of_stages_are_those_of_their_parameters() -> None:
    model = AUNet(load_run("aunet3-2m").model)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    last = sum(float(p.grad.square().sum()) for p in model.trunk.parameters() if p.grad is not None)
    found = gradient_norms(model)
    assert float(found[2]) == pytest.approx(last**0.5, rel=1e-5)
    model.embedding.weight.grad = None
    assert float(gradient_norms(model)[0]) < float(found[0])


def test_mfu_is_useful_work_by_what_products_give() -> None:
    found = Interval(seconds=2.0, bytes=100, waited=0.5, useful_flops=6e9).report(ALONE, CPU, 1e10)
    assert found["mfu"] == pytest.approx(0.3)
    assert found["interval_bytes_per_second"] == 50
    assert found["data_wait_share"] == 0.25
    assert "mfu" not in Interval(seconds=2.0).report(ALONE, CPU, None)


def test_the_peak_is_measured_once_for_a_device_and_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([1e9, 2e9, 3e9])
    monkeypatch.setattr(measures, "product_rate", lambda device, dtype: next(rates))
    assert [peak_rate(tmp_path, CPU, "fp32") for _ in range(2)] == [1e9, 1e9]
    assert peak_rate(tmp_path, CPU, "bf16") == 2e9
    (tmp_path / measures.PEAK).write_text("{")
    assert peak_rate(tmp_path, CPU, "bf16") == 3e9


def test_a_product_is_timed_on_this_machine() -> None:
    assert measures.product_rate(CPU, torch.float32) > 1e8
