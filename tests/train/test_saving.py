"""Saves in the background: what is saved is the step at which it began, training goes on, nothing fails silently."""

import math
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from aunet.errors import AUNetError, ConfigError
from aunet.evals.bpb import make_validate
from aunet.presets import load_run
from aunet.train import checkpoint, run
from aunet.train.loop import Trainer
from aunet.train.saving import Policy, Saver
from aunet.train.storage import Directory
from tests.runs import aunet, environment, files_up_to, here, losses, metrics, refused, start, write_config


class Gate(Directory):
    """A directory whose manifests wait for permission; never given to the thread that trains."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.reached, self.opened = threading.Event(), threading.Event()

    def write(self, step: int, name: str, content: bytes) -> None:
        if name == checkpoint.MANIFEST:
            assert threading.current_thread() is not threading.main_thread(), "training stands still"
            self.reached.set()
            self.opened.wait()
        super().write(step, name, content)


def begin(saver: Saver, step: int, value: float, **scores: float) -> dict[str, torch.Tensor]:
    tensors = {"model.x": torch.full((5,), value)}
    saver.begin(step, tensors, {"note": step}, {}, {int(name[1:]): score for name, score in scores.items()})
    return tensors


def complete(root: Path) -> list[int]:
    return checkpoint.complete_steps(Directory(str(root)))


# In the background


def test_what_is_saved_is_the_moment_at_which_it_began(tmp_path: Path) -> None:
    gate = Gate(str(tmp_path))
    with Saver(gate, Policy(5)) as saver:
        tensors = begin(saver, 1, 1.0)
        tensors["model.x"].fill_(7.0)  # training goes on
        gate.reached.wait()
        assert complete(tmp_path) == []
        saver.check()
        gate.opened.set()
    found = checkpoint.newest(Directory(str(tmp_path)), pytest.fail)
    assert found is not None
    loaded = {"model.x": torch.zeros(5)}
    checkpoint.load_tensors(found, loaded)
    assert loaded["model.x"].tolist() == [1.0] * 5


def test_a_state_has_the_validations_up_to_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although it is written out when later ones have been made."""
    handed: list[dict[str, Any]] = []
    begin = Saver.begin

    def kept(saver: Saver, step: int, tensors: Any, state: dict[str, Any], *more: Any) -> None:
        handed.append(state)
        begin(saver, step, tensors, state, *more)

    monkeypatch.setattr(Saver, "begin", kept)
    overrides = ["data.workers=0", "train.valid_every=2", "data.valid_bytes=50"]
    run.run_training(load_run(str(write_config(tmp_path)), overrides), make_validate, Console(quiet=True))
    assert [list(state["valid"]) for state in handed] == [[2, 4], [2, 4, 6, 8], [2, 4, 6, 8, 10, 12]]


def test_steps_go_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of step 4 is allowed to end when step 7 is; the losses are those of a run in peace."""
    gates: list[Gate] = []
    steps = Trainer.train_step

    def gated(config: object) -> Gate:
        gates.append(Gate(str(tmp_path / "out" / "checkpoints")))
        return gates[0]

    def observed(trainer: Trainer) -> dict[str, object]:
        values = steps(trainer)
        if trainer.step == 7:
            gates[0].reached.wait()
            assert complete(tmp_path / "out" / "checkpoints") == []
            gates[0].opened.set()
        return values

    config = load_run(str(write_config(tmp_path)), ["data.workers=0", "data.valid=[]"])
    with monkeypatch.context() as patch:
        patch.setattr(run, "open_storage", gated)
        patch.setattr(Trainer, "train_step", observed)
        run.run_training(config, lambda *_: None, Console(quiet=True))
    assert complete(tmp_path / "out" / "checkpoints") == [8, 12]
    peace = load_run(str(tmp_path / "config.yaml"), ["data.workers=0", "data.valid=[]", f"train.out={tmp_path / 'b'}"])
    run.run_training(peace, lambda *_: None, Console(quiet=True))
    assert losses(tmp_path / "out") == losses(tmp_path / "b")
    ours, theirs = (
        load_file(next((tmp_path / out / "checkpoints" / "step-8").glob("*.safetensors"))) for out in ("out", "b")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_one_save_at_a_time(tmp_path: Path) -> None:
    gate = Gate(str(tmp_path))
    with Saver(gate, Policy(5)) as saver:
        begin(saver, 1, 1.0)
        gate.reached.wait()
        opener = threading.Thread(target=gate.opened.set)
        opener.start()
        begin(saver, 2, 2.0)
        assert 1 in complete(tmp_path), "the second began after the first was complete"
        opener.join()


def test_a_failure_in_the_background_is_told_at_the_next_step_and_at_the_end(tmp_path: Path) -> None:
    """As one line; the checkpoint before stays."""
    with Saver(Directory(str(tmp_path)), Policy(5)) as saver:
        begin(saver, 1, 1.0)
    message = r"step-2: cannot be written \(File too large\); the newest complete checkpoint is .*step-1"
    with files_up_to(100), pytest.raises(AUNetError, match=message) as caught:
        steps_with_a_save(saver.storage)
    assert "\n" not in str(caught.value)
    with files_up_to(100), pytest.raises(AUNetError, match=message):
        steps_with_a_save(saver.storage, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def steps_with_a_save(storage: Directory, steps: float = math.inf, reason: str = "") -> None:
    with Saver(storage, Policy(5)) as saver:
        begin(saver, 2, 2.0)
        while steps:
            saver.check()
        if reason:
            raise AUNetError(reason)


def test_what_ends_the_run_is_told_rather_than_a_save_that_failed(tmp_path: Path) -> None:
    with files_up_to(100), pytest.raises(AUNetError, match="the reason"):
        steps_with_a_save(Directory(str(tmp_path)), 0, "the reason")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_full_disk_ends_a_run_in_one_line_of_every_process(tmp_path: Path, ranks: int) -> None:
    """Of several only the last one's disk is full: the others neither hang nor go on."""
    config = write_config(tmp_path, steps=5000, checkpoint_every=4, lr=1e-5)
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))"
    program = f"{limit}; from aunet.cli import main; sys.argv[0] = 'aunet'; main()"
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    processes = []
    for rank in range(ranks):
        code = [program] if rank == ranks - 1 else ["from aunet.cli import main; main()"]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", *code, "train", str(config)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**environment(), **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
        )
    for process in processes:
        _, stderr = process.communicate()
        assert process.returncode == 1, stderr
        (line,) = stderr.splitlines()
        assert line.endswith("step-4: cannot be written (File too large); there is no older checkpoint")
    assert list((tmp_path / "out" / "checkpoints").iterdir()) == []


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def test_a_kill_during_a_save_costs_the_steps_since_the_one_before(tmp_path: Path) -> None:
    """A process that dies while its save of step 8 waits for the manifest; step 4 is what is gone on from."""
    config = write_config(tmp_path)
    program = """
import os, signal, sys
from aunet.train.storage import Directory
write = Directory.write
def fatal(self, step, name, content):
    if step == 8 and name == "manifest.json":
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, step, name, content)
Directory.write = fatal
from aunet.cli import main
main()
"""
    killed = subprocess.run([sys.executable, "-c", program, "train", str(config)], env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert complete(tmp_path / "out" / "checkpoints") == [4]
    again = aunet("train", config)
    assert again.returncode == 0, again.stderr
    assert "step-8: passed over, it is incomplete (no manifest.json)" in again.stdout
    assert "resuming after step 4" in again.stdout
    (tmp_path / "whole").mkdir()
    assert here("train", write_config(tmp_path / "whole")).returncode == 0
    assert losses(tmp_path / "out") == losses(tmp_path / "whole" / "out")


def test_a_flipped_bit_is_named_and_the_checkpoint_before_is_used(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    assert here("train", config).returncode == 0
    expected = losses(tmp_path / "out")
    shard = next((tmp_path / "out" / "checkpoints" / "step-12").glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    again = here("train", config)
    assert again.returncode == 0, again.stderr
    assert f"step-12: passed over, {shard.name} is damaged" in again.stdout
    assert "resuming after step 8" in again.stdout
    assert losses(tmp_path / "out") == expected


# What stays


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (Policy(2), {40, 50}),
        (Policy(1, best=2), {10, 30, 50}),
        (Policy(1, every=20), {20, 40, 50}),
        (Policy(9), {10, 20, 30, 40, 50}),
        (Policy(1, best=1, every=50), {30, 50}),
    ],
)
def test_the_policy(policy: Policy, kept: set[int]) -> None:
    assert policy.kept([50, 10, 20, 30, 40], {10: 1.2, 20: 1.5, 30: 1.1, 35: 0.1}) == kept


def test_old_checkpoints_go_when_a_newer_one_is_complete(tmp_path: Path) -> None:
    gate = Gate(str(tmp_path))
    gate.opened.set()
    with Saver(gate, Policy(1, best=1)) as saver:
        begin(saver, 5, 1.0)
        begin(saver, 40, 1.0, _5=1.0)
        begin(saver, 300, 1.0, _5=1.0, _40=2.0)
        saver.wait()
        assert complete(tmp_path) == [5, 300]
        gate.opened.clear()
        gate.reached.clear()
        begin(saver, 400, 1.0, _5=1.0)
        gate.reached.wait()
        assert complete(tmp_path) == [5, 300], "nothing goes before the new one is complete"
        gate.opened.set()
    assert complete(tmp_path) == [5, 400]


def test_what_was_passed_over_does_not_push_out_what_is_whole(tmp_path: Path) -> None:
    with Saver(Directory(str(tmp_path)), Policy(1)) as saver:
        begin(saver, 20, 1.0)
        saver.wait()
        shutil.copytree(tmp_path / "step-20", tmp_path / "step-30")  # damaged: it says that it is step 20
        (tmp_path / "step-10").mkdir()  # cut off
        begin(saver, 25, 1.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-25", "step-30"]


def test_the_best_by_validation_stay(tmp_path: Path) -> None:
    """Over a stop in between; the state of a checkpoint says what was found until then."""
    arguments = ("train.valid_every=2", "train.keep=1", "train.keep_best=2", "train.keep_every=6")
    config = write_config(tmp_path, steps=12, checkpoint_every=2, lr=0.3)  # it does not get better all the time
    assert here("train", config, *arguments, "train.steps=6").returncode == 0
    assert here("train", config, *arguments).returncode == 0
    scores = {
        line["step"]: line["valid_bits_per_byte"] for line in metrics(tmp_path / "out") if "valid_bits_per_byte" in line
    }
    best = sorted(scores, key=lambda step: scores[step])[:2]
    assert set(complete(tmp_path / "out" / "checkpoints")) == {6, 12, *best}
    found = checkpoint.newest(Directory(str(tmp_path / "out" / "checkpoints")), pytest.fail)
    assert found is not None
    assert found.state["valid"] == {str(step): score for step, score in scores.items()}


def test_the_best_need_validations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train: keep_best: only steps that are validated have a score"):
        load_run(str(write_config(tmp_path)), ["train.keep_best=1"])
    line = refused("train", tmp_path / "config.yaml", "train.keep_best=1", "train.valid_every=2", "data.valid=[]")
    assert line == "train.keep_best: the best are those that score best on held-out text; give data.valid"


def test_a_signal_waits_for_its_save(tmp_path: Path) -> None:
    """Whatever is printed is true: the checkpoint is complete when the process says so."""
    process = start("train", write_config(tmp_path, steps=5000, checkpoint_every=1, lr=1e-5))
    assert process.stdout is not None
    while not complete(tmp_path / "out" / "checkpoints"):
        continue
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate()
    assert process.returncode == 143
    last = losses(tmp_path / "out")[-1][0]
    assert f"stopped after step {last} of 5000" in stdout
    assert complete(tmp_path / "out" / "checkpoints")[-1] == last
