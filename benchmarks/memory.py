"""The memory that `aunet plan` predicts against that of real runs.

    python benchmarks/memory.py [--ranks 1 2] [--steps 2] [--device cpu|cuda] [--precision fp32|bf16]

Every case is a run of its own, started as anybody starts one (`python -m aunet train`, or `torchrun` for several
processes); the prediction is made for the units per stage that its metrics show at the step that had most. On CUDA the
measure is `torch.cuda.max_memory_allocated`. On the CPU there are two: what torch's allocator gave at the most, from a
run of the same settings under its profiler, and the peak of the resident memory, less that of the same command with a
model and rows of next to nothing. Each is that of the rank that has most. Prints Markdown. The text is the
documentation that Python carries.
"""

import argparse
import itertools
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from aunet import corpus
from aunet.planning.prediction import rank_memory
from aunet.presets import load_run
from aunet.train.distributed import find_ranks
from aunet.train.metrics import read
from aunet.train.run import run_training

TINY = [
    "model.stages=[{dim: 8, layers: 1, head_dim: 8}]",
    "model.splitter=''",
    "data.seq_len=64",
    "train.batch_bytes=256",
]
WIDE = "model.stages=[{dim: 64, layers: 1, head_dim: 32, window: 256}, {dim: 768, layers: 6, head_dim: 64}]"
FLAT = "model.stages=[{dim: 256, layers: 3, head_dim: 64}]"
CASES: dict[str, tuple[str, list[str]]] = {
    "aunet2-2m, 16 kB": ("aunet2-2m", ["train.batch_bytes=16384"]),
    "aunet3-2m, 32 kB in 2 micro-batches": ("aunet3-2m", ["train.batch_bytes=32768", "train.accumulate=2"]),
    "bytes, 3 layers of 256, 8 kB": ("aunet2-2m", [FLAT, "model.splitter=''", "train.batch_bytes=8192"]),
    "AU-Net 2, 43M, 8 kB": ("aunet2-2m", [WIDE, "train.batch_bytes=8192"]),
}


def main() -> None:
    """Run every case with every number of ranks, and print one table."""
    if sys.argv[1:2] == ["--worker"]:
        worker(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--cases", nargs="+", default=list(CASES), help="beginnings of their names")
    arguments = parser.parse_args()
    on_cuda = arguments.device == "cuda"
    kind = torch.cuda.get_device_name() if on_cuda else platform.processor() or platform.machine()
    print(f"{kind}, torch {torch.__version__}, {arguments.precision}\n")
    print("| run | ranks | predicted | allocated | of the prediction | resident | of the prediction |")
    print("|---|---|---|---|---|---|---|")
    common = [f"train.device={arguments.device}", f"train.precision={arguments.precision}", "train.threads=1"]
    common += [f"train.steps={arguments.steps}", "train.lr=1e-4", "train.valid_every=0", "data.workers=1"]
    with tempfile.TemporaryDirectory() as place:
        common.append(f"data.sources=[{{path: '{corpus.write(Path(place))[0]}'}}]")
        places = (Path(place) / str(i) for i in itertools.count())
        for ranks in arguments.ranks:
            base = run("demo", [*common, *TINY, f"train.batch_bytes={64 * ranks}"], ranks, next(places))[-1]["peak_rss"]
            for name, (preset, own) in CASES.items():
                if any(name.startswith(given) for given in arguments.cases):
                    settings = [*common, *own]
                    lines = run(preset, settings, ranks, next(places))
                    predicted = predict(preset, settings, ranks, lines)
                    given = lines[-1]["peak_allocated"] if on_cuda else allocated(preset, settings, ranks, next(places))
                    resident = lines[-1]["peak_rss"] - base
                    cells = [name, str(ranks), megabytes(predicted), megabytes(given), f"{given / predicted:.2f}"]
                    cells += ["", ""] if on_cuda else [megabytes(resident), f"{resident / predicted:.2f}"]
                    print(f"| {' | '.join(cells)} |", flush=True)


def megabytes(size: float) -> str:
    """A cell of the table."""
    return f"{size / 1e6:,.0f} MB"


def run(preset: str, settings: Sequence[str], ranks: int, out: Path) -> list[dict[str, Any]]:
    """The lines that a real run logged."""
    start(["-m", "aunet", "train", preset, *settings, f"train.out={out}"], ranks)
    return [line for line in read(out / "metrics.jsonl") if "peak_rss" in line]


def allocated(preset: str, settings: Sequence[str], ranks: int, out: Path) -> int:
    """Bytes that torch's CPU allocator gave at the most to a rank of such a run."""
    start([__file__, "--worker", str(out), preset, *settings, f"train.out={out}"], ranks)
    return max(int(path.read_text()) for path in out.glob("allocated-*"))


def start(command: Sequence[str], ranks: int) -> None:
    """Run Python with these arguments, as one process or several, to its end."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    line = [sys.executable, *launcher, *command]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(done.stderr)


def worker(out: Path, preset: str, settings: Sequence[str]) -> None:
    """One process of a run under the profiler, which tells all allocations; writes the most that was allocated."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run_training(load_run(preset, settings), lambda *_: None, Console(quiet=True))
    assert found.profiler is not None
    events = found.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    most = max(itertools.accumulate(size for _, size in changes))
    (out / f"allocated-{find_ranks().rank}").write_text(str(most))


def predict(preset: str, settings: Sequence[str], ranks: int, lines: list[dict[str, Any]]) -> int:
    """For the rank with most rows, at the step with most positions, whose units were as long as the metrics say."""
    config = load_run(preset, settings)
    largest = max(lines, key=lambda line: line["positions"])
    rows = round(config.train.batch_bytes / config.data.seq_len)
    share = -(-rows // ranks) / rows / config.train.accumulate
    counts = [round(largest["positions"] * share / contraction) for contraction in largest["contraction"]]
    return rank_memory(config, ranks, counts, max(1, round(rows * share))).total


if __name__ == "__main__":
    main()
