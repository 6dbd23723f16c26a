"""A trace is a file that Perfetto reads, with names for what a step consists of."""

import gzip
import json
from pathlib import Path

import pytest

from aunet.errors import AUNetError
from aunet.model.aunet import AUNet
from aunet.presets import load_run
from aunet.train.distributed import ALONE
from aunet.train.profile import ACTIVE, tracing
from tests.ranks import together
from tests.runs import done, losses, write_config

NAMES = {"data", "embedding", "trunk", "head", "backward", "clip", "optimizer"}
NAMES |= {f"stage 1 {name}" for name in ("contract", "pool", "upsample", "expand")}


def ranges(path: Path) -> list[str]:
    """Names of the ranges that the program gave, in a file of gzipped JSON."""
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return [event["name"] for event in events if event.get("cat") == "user_annotation"]


def test_a_trace_names_the_parts_of_a_few_steps(tmp_path: Path) -> None:
    config = write_config(tmp_path, steps=8, checkpoint_every=50)
    shown = done("train", config, "train.profile=true")
    (line,) = [line for line in shown.splitlines() if "trace" in line]
    path = tmp_path / "out" / "profile" / "rank-0.json.gz"
    assert str(path) in line
    found = ranges(path)
    assert set(found) >= NAMES
    assert all(found.count(name) == ACTIVE for name in NAMES), found
    plain = tmp_path / "plain"
    done("train", config, f"train.out={plain}")
    assert losses(plain) == losses(tmp_path / "out"), "what is traced is what runs"
    assert not (plain / "profile").exists()


def test_blocks_that_are_computed_again_have_one_range(tmp_path: Path) -> None:
    done("train", write_config(tmp_path, steps=8), "train.profile=true", "train.recompute=[true,true]")
    found = ranges(tmp_path / "out" / "profile" / "rank-0.json.gz")
    assert all(found.count(name) == ACTIVE for name in NAMES), found


def test_a_run_that_ends_early_leaves_what_there_is(tmp_path: Path) -> None:
    done("train", write_config(tmp_path, steps=4), "train.profile=true")
    assert set(ranges(tmp_path / "out" / "profile" / "rank-0.json.gz")) >= NAMES


def test_every_rank_writes_its_own(tmp_path: Path) -> None:
    together(2, ("train", write_config(tmp_path, steps=6, batch_bytes=2048), "train.profile=true"))
    for rank in range(2):
        assert set(ranges(tmp_path / "out" / "profile" / f"rank-{rank}.json.gz")) >= NAMES


def test_without_it_nothing_hangs_on_the_model(tmp_path: Path) -> None:
    model = AUNet(load_run("demo").model)

    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    with tracing(False, model, tmp_path, ALONE, print):
        assert hooks() == 0
    with tracing(True, model, tmp_path, ALONE, print):
        assert hooks() > 0
    assert hooks() == 0
    assert (tmp_path / "profile").is_dir()


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "profile").write_text("a file")
    with (
        pytest.raises(AUNetError, match=r"train\.out"),
        tracing(True, AUNet(load_run("demo").model), tmp_path, ALONE, print),
    ):
        pass
