"""For how long training stands still when a checkpoint is written: in the background, and waited for.

    python benchmarks/checkpoints.py [--model PRESET] [--saves 3] [--steps 8] [--threads 2] [--out DIR]

Real steps of a preset on the documentation that Python carries; the states of the optimizer are saved too. Training is
still until `Saver.begin` returns, or, waited for, until the checkpoint is complete. Lost in all: that, and by how much
the steps beside the write were slower than those before it. Both kinds of save are done in turn, so that a machine
whose speed drifts does not change the comparison.
"""

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch

from aunet import corpus
from aunet.data.loader import Loader
from aunet.presets import load_run
from aunet.splitting import splitter
from aunet.train import checkpoint
from aunet.train.loop import Trainer
from aunet.train.plan import make_plan
from aunet.train.runtime import prepare_device
from aunet.train.saving import Policy, Saver
from aunet.train.storage import storage_at


def main() -> None:
    """Measure and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="aunet2-23m", help="a preset")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the preset")
    parser.add_argument("--saves", type=int, default=3, help="of each kind")
    parser.add_argument("--steps", type=int, default=8, help="in peace, before the saves")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where to write; a temporary directory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.out) as directory:
        measure(arguments, Path(directory))


def measure(arguments: argparse.Namespace, directory: Path) -> None:
    """Train, save in both ways in turn, and print what was found."""
    text, _ = corpus.write(directory)
    settings = [f"data.sources=[{{path: '{text}'}}]", f"train.out={directory}", f"train.threads={arguments.threads}"]
    settings += ["train.steps=1000", "train.batch_bytes=8192", "data.seq_len=2048", "train.lr=1e-4"]
    config = load_run(arguments.model, [*settings, *arguments.set])
    steps: list[float] = []
    found: dict[str, list[tuple[float, float, float]]] = {"waited for": [], "in the background": []}
    during: list[float] = []
    with Loader(config.data, splitter(config.model.splitter)) as loader:
        trainer = Trainer(config, make_plan(config), loader, prepare_device(config.train))
        parameters = sum(parameter.numel() for parameter in trainer.model.parameters())

        def step() -> float:
            started = time.perf_counter()
            trainer.train_step()
            return time.perf_counter() - started

        for _ in range(2):
            step()
        with Saver(storage_at(str(directory / "checkpoints"), directory), Policy(1)) as saver:
            for number in range(arguments.saves + 1):
                for kind, times in found.items():
                    usual = statistics.median(measured := [step() for _ in range(arguments.steps)])
                    steps += measured
                    tensors = checkpoint.training_tensors(trainer.model, trainer.optimizers)
                    os.sync()
                    started = time.perf_counter()
                    saver.begin(trainer.step, tensors, {}, {}, {})
                    if kind == "waited for":
                        saver.wait()
                    begun = time.perf_counter() - started
                    beside = []
                    while saver.busy:
                        beside.append(step())
                    complete = time.perf_counter() - started
                    saver.wait()
                    if number:  # the first allocates the memory of the copy
                        times.append((begun, complete, begun + sum(beside) - usual * len(beside)))
                        during += beside
        size = sum(path.stat().st_size for path in (directory / "checkpoints").rglob("*") if path.is_file())
        shutil.rmtree(directory / "checkpoints")
    print(
        f"{platform.processor() or platform.machine()}, {arguments.threads} threads, torch {torch.__version__}; ",
        end="",
    )
    print(f"{parameters / 1e6:.1f}M parameters, {size / 1e6:.0f} MB a checkpoint")
    print(f"step: {statistics.median(steps):.2f} s, step during: {_median(during)} s\n")
    print("| save | training stands still, s: median (min-max) | until complete, s | lost in all, s |")
    print("|---|---|---|---|")
    for kind, times in found.items():
        begun, complete, lost = zip(*times, strict=True)
        print(f"| {kind} | {_range(begun)} | {_range(complete)} | {_range(lost)} |")


def _median(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f}" if seconds else "none fell beside a write,"


def _range(values: tuple[float, ...]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()
