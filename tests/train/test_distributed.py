"""Runs of several real processes: the losses of one, whatever their number, before and after they change or stop."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from aunet.compiler import CPP_COMPILERS
from aunet.config import RunConfig
from aunet.errors import AUNetError, ConfigError
from aunet.model.aunet import AUNet
from aunet.presets import load_run
from aunet.train.distributed import ALONE, Ranks, ask_ahead, check, find_ranks, in_order
from tests.forks import begin
from tests.model.packs import small_config
from tests.ranks import start_together, together
from tests.runs import environment, here, losses, metrics, refused, start, wait_for_step, write_config


def same(found: Path, expected: Path, within: float = 1e-5) -> None:
    assert [step for step, _ in losses(found)] == [step for step, _ in losses(expected)]
    for (_, a), (_, b) in zip(losses(found), losses(expected), strict=True):
        assert a == pytest.approx(b, abs=within)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 steps of 8 rows in one process."""
    return _trained(tmp_path_factory.mktemp("single"), 25)


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 of them, enough for a signal to come before the end."""
    return _trained(tmp_path_factory.mktemp("longer"), 70)


def _trained(directory: Path, steps: int) -> Path:
    result = here("train", write_config(directory, steps=steps, batch_bytes=2048, checkpoint_every=20))
    assert result.returncode == 0, result.stderr
    return directory / "out"


@pytest.mark.parametrize(
    ("ranks", "settings"),
    [
        (4, ["data.workers=0", "train.copies=2"]),
        (3, ["train.accumulate=2"]),  # with workers of the loader; of 8 rows one rank has 2 and the others 3
    ],
)
def test_ranks_together_have_the_losses_of_one(single: Path, tmp_path: Path, ranks: int, settings: list[str]) -> None:
    together(ranks, ("train", single.parent / "config.yaml", f"train.out={tmp_path / 'out'}", *settings))
    same(tmp_path / "out", single)
    ours, theirs = metrics(tmp_path / "out"), metrics(single)
    for key in ("bytes", "positions", "useful_flops", "contraction"):
        assert [line.get(key) for line in ours] == [line.get(key) for line in theirs], key
    assert [line["grad_norm"] for line in ours if "loss" in line] == pytest.approx(
        [line["grad_norm"] for line in theirs if "loss" in line], abs=1e-4
    )
    assert ours[-1]["valid_bits_per_byte"] == pytest.approx(theirs[-1]["valid_bits_per_byte"], abs=1e-5)
    files = {path.suffix for path in (tmp_path / "out" / "checkpoints").rglob("*") if path.is_file()}
    assert files == {".json", ".safetensors"}, "nothing is pickled"


def test_a_run_goes_on_with_other_numbers_of_ranks(longer: Path, tmp_path: Path) -> None:
    """2 -> 1 -> 2: torchrun is told to stop, then one process, and two end the run."""
    arguments = ("train", str(longer.parent / "config.yaml"), f"train.out={tmp_path / 'out'}")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "aunet")
    launcher = subprocess.Popen(
        [*torchrun, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    wait_for_step(tmp_path / "out", 3)
    launcher.send_signal(signal.SIGTERM)
    stdout, stderr = launcher.communicate()
    assert launcher.returncode != 0
    stopped = losses(tmp_path / "out")[-1][0]
    assert f"stopped after step {stopped} of 70, saved in" in stdout, stderr
    assert (tmp_path / "out" / "checkpoints" / f"step-{stopped}" / "manifest.json").is_file()
    alone = start(*arguments)
    wait_for_step(tmp_path / "out", stopped + 2)
    os.killpg(alone.pid, signal.SIGTERM)
    stdout, stderr = alone.communicate()
    assert alone.returncode == 143, stderr
    assert f"resuming after step {stopped} from" in stdout
    together(2, arguments)
    same(tmp_path / "out", longer)


def test_one_rank_that_is_told_to_stop_stops_all_of_them(single: Path, tmp_path: Path) -> None:
    """Without a launcher, in the environment that a step of SLURM has; both end as a scheduler wants to see it."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    arguments = ("train", single.parent / "config.yaml", f"train.out={tmp_path / 'out'}", "train.steps=5000")
    processes = []
    for rank in range(2):
        slurm = {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": str(rank)}
        found = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        processes.append(begin("aunet", *arguments, "train.lr=1e-5", env={**environment(), **slurm, **found}))
    wait_for_step(tmp_path / "out", 2)
    processes[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [143, 143], outputs
    last = losses(tmp_path / "out")[-1][0]
    assert (tmp_path / "out" / "checkpoints" / f"step-{last}" / "manifest.json").is_file()
    assert "stopped after step" in outputs[0][0]
    assert outputs[1][0] == "", "one rank talks"


def test_weights_of_a_model_are_shared_out(single: Path, tmp_path: Path) -> None:
    shutil.copy(single.parent / "config.yaml", tmp_path)
    arguments = ("train", tmp_path / "config.yaml", f"train.init_from={single}", "train.steps=4", "data.workers=0")
    assert here(*arguments, f"train.out={tmp_path / 'one'}").returncode == 0
    together(2, (*arguments, f"train.out={tmp_path / 'two'}", "train.copies=2"))
    same(tmp_path / "two", tmp_path / "one")
    assert losses(tmp_path / "two")[0][1] < losses(single)[0][1] - 1


# What is cut up, and how

LOOKUPS = [
    "model.stages.0.lookup={ngrams: [1, 2], buckets: 97}",
    "model.stages.1.lookup={ngrams: [1, 2], buckets: 97, known: true}",
    "train.lookup_sample=3e4",
]
MAMBA = "model.stages.1={dim: 32, layers: 2, mixer: mamba2, head_dim: 16, state_dim: 16}"


def same_norms(found: Path, expected: Path) -> None:
    """Of the gradient and of its part in every stage: what is cut up counts once, however it is cut up."""
    ours, theirs = (
        [[line["grad_norm"], *line["stage_grad_norm"]] for line in metrics(out) if "loss" in line]
        for out in (found, expected)
    )
    assert torch.allclose(torch.tensor(ours), torch.tensor(theirs), rtol=0, atol=1e-4)


def test_lookups_mamba_and_recomputed_blocks_have_the_losses_of_one(tmp_path: Path) -> None:
    """3 ranks cut 16 columns into 6, 6 and 4; then a run goes from 3 ranks to 2 in copies, and another from 3 to 1."""
    config = write_config(tmp_path, steps=14, batch_bytes=2048, checkpoint_every=6)
    line = ("train", config, MAMBA, *LOOKUPS, "data.workers=0")
    one, three, two, again = (f"train.out={tmp_path / name}" for name in ("one", "three", "two", "again"))
    assert here(*line, one).returncode == 0
    together(3, (*line, three, "train.recompute=[true, true]", "train.accumulate=2"))
    same(tmp_path / "three", tmp_path / "one")
    same_norms(tmp_path / "three", tmp_path / "one")
    for name in ("two", "again"):
        shutil.copytree(tmp_path / "three", tmp_path / name)
        shutil.rmtree(tmp_path / name / "checkpoints" / "step-14")
    together(2, (*line, two, "train.copies=2"))
    assert "resuming after step 12" in here(*line, again).stdout
    for name in ("two", "again"):
        same(tmp_path / name, tmp_path / "one")
        same_norms(tmp_path / name, tmp_path / "one")
    weights = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("one", "three", "two")]
    assert len(set(weights)) == 1


def test_muon_and_bf16_follow_one_process(single: Path, tmp_path: Path) -> None:
    """Not to the last digits: Newton-Schulz in bf16 turns those of the gradient into others.

    Two micro-batches on one process differ from one in the same way.
    """
    variants = {"muon": "train.optimizer=muon", "bf16": "train.precision=bf16"}
    line = ("train", single.parent / "config.yaml", "train.steps=20", "data.workers=0")
    for name, setting in variants.items():
        assert here(*line, setting, f"train.out={tmp_path / name}1").returncode == 0
    together(2, *((*line, setting, f"train.out={tmp_path / name}2") for name, setting in variants.items()))
    same(tmp_path / "muon2", tmp_path / "muon1", within=5e-4)
    same(tmp_path / "bf162", tmp_path / "bf161", within=0.02)
    assert losses(tmp_path / "bf161") != losses(single)[:20]


@pytest.mark.skipif(not any(shutil.which(name) for name in CPP_COMPILERS), reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_of_ranks_train_alike(tmp_path: Path) -> None:
    """Blocks of one shape at both stages, which are compiled once: that takes half a minute and more."""
    stage = "{dim: 16, layers: 1, head_dim: 8, window: 32}"
    config = write_config(tmp_path, steps=3, batch_bytes=2048, recompute=[True, False])
    line = ("train", config, f"model.stages=[{stage}, {stage}]", "data.workers=0")
    assert here(*line, f"train.out={tmp_path / 'plain'}").returncode == 0
    together(2, (*line, f"train.out={tmp_path / 'compiled'}", "train.compile=true"))
    same(tmp_path / "compiled", tmp_path / "plain", within=1e-4)


@pytest.mark.parametrize("ranks", [2, 4])
def test_no_rank_has_the_whole_and_all_have_its_weights(ranks: int) -> None:
    """Made, read, gathered, moved by Muon: see `tests.train.parts`."""
    start_together(ranks, "tests.train.parts")


class Asked:
    """Stands for a module that FSDP has cut up."""

    def set_modules_to_forward_prefetch(self, modules: list[nn.Module]) -> None:
        self.forward = modules

    def set_modules_to_backward_prefetch(self, modules: list[nn.Module]) -> None:
        self.backward = modules


def test_wide_blocks_are_asked_for_while_the_byte_stage_computes() -> None:
    model = AUNet.on_meta(small_config(3))
    names = {module: name for name, module in model.named_modules()}
    order = [names[module] for module in in_order(model)]
    down = [f"stages.{s}.{part}" for s in range(2) for part in ("contract.0", "pool")]
    assert order == [
        *down,
        "trunk.blocks.0",
        *(f"stages.{s}.{part}" for s in (1, 0) for part in ("upsample", "expand.0")),
    ]
    whole, modules = Asked(), [Asked() for _ in order]
    ask_ahead(whole, modules)
    assert whole.forward == modules[:2]
    last = order.index("stages.0.contract.0")
    assert [order[modules.index(module)] for module in modules[last].forward] == [
        "stages.0.pool",
        "stages.1.contract.0",
    ]
    first = order.index("stages.0.upsample")
    assert [order[modules.index(module)] for module in modules[first].backward] == [
        "stages.1.expand.0",
        "stages.1.upsample",
    ]
    assert modules[-1].forward == modules[0].backward == []


# Who takes part


def test_ranks_are_those_of_torchrun_or_of_a_step_of_slurm() -> None:
    place = {"MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert find_ranks({}) == ALONE
    assert find_ranks({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", **place}) == Ranks(5, 8, 1)
    slurm = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "3"}
    assert find_ranks({**slurm, **place}) == Ranks(3, 4, 3)
    assert find_ranks({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == ALONE, "the script of a job is one process"
    assert find_ranks({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}) == ALONE
    with pytest.raises(ConfigError, match="MASTER_ADDR is not set, and 4 processes must find each other"):
        find_ranks(slurm)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is '' in the environment, not a whole number"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two' in the environment, not a whole number"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1' in the environment, not a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x' in the environment, not a whole number"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "x"}, "LOCAL_RANK is 'x' in the environment, not a whole number"),
        ({"WORLD_SIZE": "0"}, "RANK is 0, WORLD_SIZE 0: processes count from 0"),
        ({"WORLD_SIZE": "1", "RANK": "3"}, "RANK is 3, WORLD_SIZE 1: processes count from 0"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "2"}, "SLURM_PROCID is 2, SLURM_STEP_NUM_TASKS 2: processes"),
        ({"WORLD_SIZE": "2", "MASTER_PORT": "abc"}, "MASTER_PORT is 'abc' in the environment, not a whole number"),
        ({"WORLD_SIZE": "2", "MASTER_PORT": "65536"}, "MASTER_PORT is 65536; give a free port from 1 to 65535"),
    ],
)
def test_variables_that_say_nothing_are_one_line(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        find_ranks({"MASTER_ADDR": "a", "MASTER_PORT": "1", **variables})
    assert "\n" not in str(caught.value)


def test_a_port_that_is_taken_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        port = str(taken.getsockname()[1])
        place = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        line = refused("train", write_config(tmp_path), code=1)
    assert line.startswith(f"rank 0 cannot meet the others at localhost, port {port} (")
    assert line.endswith("see that MASTER_ADDR is the host of the first one and MASTER_PORT free there")


def test_restarts_of_several_machines_need_a_store_of_their_own() -> None:
    found = {"RANK": "0", "WORLD_SIZE": "8", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    agents = {"TORCHELASTIC_USE_AGENT_STORE": "True", "GROUP_WORLD_SIZE": "2", "TORCHELASTIC_MAX_RESTARTS": "3"}
    with pytest.raises(ConfigError, match="export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun"):
        find_ranks({**found, **agents})
    for harmless in (
        {"TORCHELASTIC_MAX_RESTARTS": "0"},
        {"GROUP_WORLD_SIZE": "1"},
        {"TORCHELASTIC_USE_AGENT_STORE": "False"},
    ):
        assert find_ranks({**found, **agents, **harmless}).count == 8


@pytest.mark.parametrize(
    ("count", "rows", "setting", "message"),
    [
        (4, 8, "train.copies=3", "train.copies: 4 processes cannot hold 3 copies; give a divisor"),
        (1, 8, "train.copies=2", "train.copies: 1 processes cannot hold 2 copies; give a divisor"),
        (
            2,
            8,
            "train.device=cuda:0",
            "train.device: all 2 processes would share cuda:0; give cuda, and each has its own",
        ),
        (4, 7, "train.accumulate=2", "train.batch_bytes: a step of 7 rows is too small for 4 processes"),
        (
            7,
            8,
            "model.stages.0.lookup={ngrams: [1], buckets: 9}",
            r"model\.stages\.0\.lookup: 16 columns, 3 for each process, are too few for 7 processes",
        ),
    ],
)
def test_what_ranks_cannot_train_is_one_line(tmp_path: Path, count: int, rows: int, setting: str, message: str) -> None:
    config: RunConfig = load_run(str(write_config(tmp_path)), [setting])
    with pytest.raises(ConfigError, match=message) as error:
        check(config, Ranks(0, count), rows)
    assert "\n" not in str(error.value)


def test_what_fails_at_one_rank_is_told_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(AUNetError) as caught:
        ALONE.together((tmp_path / "gone").read_bytes)
    assert str(caught.value) == f"{tmp_path / 'gone'}: No such file or directory"
