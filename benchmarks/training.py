"""Training speed on this machine, as a share of its own fp32 matrix-product rate.

    python benchmarks/training.py [FILE.jsonl ...] [--modes eager compile] [--steps 12] [--threads 2] [--model PRESET]

The model of docs/performance.md is aunet2-23m: dims [128, 512], layers [3, 6], head dims [32, 64], FFN [512, 1536],
windows [256, 4096], `word1`; AdamW, 4 x 2048 bytes of English per step. Every step stands between two measurements of a
2048^3 product, and the shares are taken pair by pair, so that a machine whose speed drifts does not change them. Only
useful FLOPs count: exact visible keys, no padding. Without FILE the text is the documentation that Python carries. Each
mode runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from aunet import corpus
from aunet.config import DataConfig, SourceConfig, TrainConfig
from aunet.data.batch import Batch, collate
from aunet.data.loader import Loader
from aunet.model.aunet import AUNet
from aunet.model.flops import stage_lengths, useful_flops
from aunet.presets import load_run
from aunet.splitting import splitter
from aunet.train.optim import build_optimizers, clip_gradients, take_step
from aunet.train.runtime import compile_blocks, keep_freed_memory

ROWS, SEQ_LEN, BATCHES = 4, 2048, 6
MODES = ("eager", "compile", "recompute-bytes", "recompute")
"""`recompute`: blocks keep their input and compute the rest again in the backward pass, of all stages or of one."""


def main() -> None:
    """Run every mode and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--modes", nargs="+", default=["eager", "compile"], choices=MODES)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="aunet2-23m", help="a preset")
    parser.add_argument("--worker", choices=MODES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        found = measure(arguments.model, arguments.worker, arguments.files, arguments.steps, arguments.threads)
        print(json.dumps(found))
        return
    print(f"{platform.processor() or platform.machine()}, {arguments.threads} threads, torch {torch.__version__}\n")
    print(
        "| mode | step | bytes/s | useful MFLOP/byte | 2048^3 product | share of it, median (min-max) | peak memory |"
    )
    print("|---|---|---|---|---|---|---|")
    for mode in arguments.modes:
        command = [sys.executable, __file__, "--worker", mode, "--steps", str(arguments.steps)]
        command += ["--threads", str(arguments.threads), "--model", arguments.model, *arguments.files]
        r = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        low, middle, high = min(r["shares"]), statistics.median(r["shares"]), max(r["shares"])
        print(
            f"| {mode} | {r['step']:.2f} s | {r['bytes_per_second']:,.0f} | {r['useful'] / 1e6:.1f} | "
            f"{r['product'] / 1e9:.0f} GFLOP/s | {middle:.1%} ({low:.1%}-{high:.1%}) | "
            f"{r['memory'] / 2**20:,.0f} MiB |",
            flush=True,
        )


def measure(preset: str, mode: str, files: list[str], steps: int, threads: int) -> dict[str, object]:
    """Time `steps` optimizer steps between matrix products, after two that warm up."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    config = load_run(preset, []).model
    batches = read_batches(files, config.splitter)
    model = AUNet(config)
    model.initialise(0)
    if mode == "compile":
        compile_blocks(model, torch.device("cpu"))
    if mode.startswith("recompute"):
        model.recompute([s == 0 or mode == "recompute" for s in range(len(config.stages))])
    optimizers = build_optimizers(model, TrainConfig())
    square = torch.randn(2048, 2048)
    for batch in batches[:2]:
        step(model, optimizers, batch)
    seconds, products, shares, useful, sizes = [], [], [], [], []
    for i in range(steps):
        batch = batches[i % len(batches)]
        flops = useful_flops(config, stage_lengths(batch.levels, batch.starts, batch.counts))
        before = product_rate(square)
        started = time.perf_counter()
        step(model, optimizers, batch)
        seconds.append(time.perf_counter() - started)
        products.append((before + product_rate(square)) / 2)
        shares.append(flops / seconds[-1] / products[-1])
        useful.append(flops / batch.bytes)
        sizes.append(batch.bytes)
    return {
        "step": statistics.median(seconds),
        "bytes_per_second": statistics.median(size / s for size, s in zip(sizes, seconds, strict=True)),
        "useful": statistics.mean(useful),
        "product": statistics.median(products),
        "shares": shares,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def step(model: AUNet, optimizers: list[torch.optim.Optimizer], batch: Batch) -> None:
    """Forward, backward, clip, AdamW: what the trainer does."""
    loss = model.loss(batch.ids, batch.targets, batch.levels, batch.starts, batch.counts) / batch.counts[0]
    loss.backward()
    clip_gradients(model.parameters(), 0.2)
    take_step(optimizers, 1e-4)


def product_rate(square: torch.Tensor) -> float:
    """FLOP/s of a 2048^3 product in fp32, the median of three."""
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        square @ square
        rates.append(2 * 2048**3 / (time.perf_counter() - started))
    return statistics.median(rates)


def read_batches(files: list[str], rule: str) -> list[Batch]:
    """Batches of ROWS full rows from the given files, or from Python's documentation."""
    with tempfile.TemporaryDirectory() as directory:
        paths = files or [str(corpus.write(Path(directory))[0])]
        sources = tuple(SourceConfig(path=path) for path in paths)
        config = DataConfig(sources=sources, seq_len=SEQ_LEN, workers=0)
        with Loader(config, splitter(rule)) as loader:
            full = (row for row, _ in loader if row.bytes > 0.98 * SEQ_LEN)
            return [collate([next(full) for _ in range(ROWS)]) for _ in range(BATCHES)]


if __name__ == "__main__":
    main()
