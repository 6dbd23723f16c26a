"""How the cost of a training step grows with the length of one document.

    python benchmarks/length.py [FILE.txt] [--lengths 2048 8192 32768 131072] [--model aunet2-2m] [--threads 2]
                                [--trunk-window 4096]

One document of each length, forward, backward and AdamW; the byte stage has a window of 256 bytes and the trunk one of
4096 units, about 20 kB (0: everything, whose attention grows with the square of the length). Without FILE the text is
the documentation that Python carries. Each length runs in a process of its own; memory is its peak above that of the
process before the first step.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from aunet import corpus
from aunet.config import TrainConfig
from aunet.data.batch import Batch, collate
from aunet.data.rows import Piece, build_row
from aunet.data.text import read
from aunet.model.aunet import AUNet
from aunet.presets import load_run
from aunet.splitting import splitter
from aunet.train.optim import build_optimizers, take_step
from aunet.train.runtime import keep_freed_memory
from aunet.vocabulary import BYTES

KIB = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Run every length and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192, 32768, 131072])
    parser.add_argument("--model", default="aunet2-2m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--trunk-window", type=int, default=4096)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(
            json.dumps(
                measure(arguments.model, arguments.trunk_window, arguments.file, arguments.worker, arguments.threads)
            )
        )
        return
    print(
        f"{arguments.model}, trunk window {arguments.trunk_window}, {platform.machine()}, {arguments.threads} threads\n"
    )
    print("| bytes in one document | step | per byte, against the shortest | memory | per byte, against the shortest |")
    print("|---|---|---|---|---|")
    first = None
    for length in arguments.lengths:
        command = [sys.executable, __file__, "--worker", str(length), "--model", arguments.model]
        command += ["--threads", str(arguments.threads), "--trunk-window", str(arguments.trunk_window)]
        command += [arguments.file] if arguments.file else []
        r = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        first = first or (r["step"] / length, r["memory"] / length)
        print(
            f"| {length:,} | {r['step']:.3f} s | {r['step'] / length / first[0]:.2f} | "
            f"{r['memory'] / 2**20:,.0f} MiB | {r['memory'] / length / first[1]:.2f} |",
            flush=True,
        )


def measure(name: str, window: int, file: str | None, length: int, threads: int) -> dict[str, float]:
    """Median seconds of a step and its memory in bytes."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    run = load_run(name, [])
    run = load_run(name, [f"model.stages.{run.model.depth}.window={window or 'null'}"])
    model = AUNet(run.model)
    model.initialise(0)
    optimizers = build_optimizers(model, TrainConfig())
    batch = document(file, length, run.model.splitter)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    seconds = []
    for _ in range(2 if length > 65536 else 6):
        started = time.perf_counter()
        loss = model.loss(batch.ids, batch.targets, batch.levels, batch.starts, batch.counts) / batch.counts[0]
        loss.backward()
        take_step(optimizers, 1e-4)
        seconds.append(time.perf_counter() - started)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB - before
    return {"step": statistics.median(seconds[1:]), "memory": memory}


def document(file: str | None, length: int, rule: str) -> Batch:
    """The first `length` bytes of a text as one uncut document."""
    text = Path(file).read_bytes() if file else "\n\n".join(text for _, text in corpus.gather().train).encode()
    if len(text) < length:
        raise SystemExit(f"{file}: has {len(text)} bytes, {length} are needed")
    data = text[:length]
    return collate([build_row([Piece(*read(data, splitter(rule), BYTES), 0, length)], splitter(rule).depth)])


if __name__ == "__main__":
    main()
