"""Head and loss on the CPU, forward and backward: all logits at once against those of a few positions at a time.

    python benchmarks/loss.py [--threads 1] [--repetitions 8]

Both ways give the same numbers up to rounding. The best of the interleaved repetitions is shown.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from aunet.model.loss import head_loss
from aunet.train.runtime import keep_freed_memory

CASES = {
    "bytes at 1e13 FLOPs": (7168, 24, 258),
    "1 024 tokens at 3e13": (3000, 80, 1026),
    "4 096 tokens, narrower than at 3e13": (4300, 56, 4098),
    "16 384 tokens at 3e13": (4300, 24, 16386),
}
"""Positions of a step, width, ids."""


def main() -> None:
    """Print one row per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as in training; without it large tensors cost twice as much
    print(f"torch {torch.__version__}, {arguments.threads} threads\n\n| case | all at once | a few at a time | ratio |")
    print("|---|---|---|---|")
    for name, (positions, width, ids) in CASES.items():
        x_TD, weight_VD = (torch.randn(size, width, requires_grad=True) for size in (positions, ids))
        targets_T = torch.randint(ids, (positions,))
        ways = [partial(seconds, way, x_TD, weight_VD, targets_T) for way in (all_logits, head_loss)]
        turns = [[way() for way in ways] for _ in range(arguments.repetitions + 1)][1:]
        slow, fast = map(min, zip(*turns, strict=True))
        print(f"| {name} | {slow * 1e3:.1f} ms | {fast * 1e3:.1f} ms | {slow / fast:.2f} |")


def all_logits(x_TD: Tensor, weight_VD: Tensor, targets_T: Tensor) -> Tensor:
    """As it is usually written."""
    return F.cross_entropy(F.linear(x_TD, weight_VD), targets_T, reduction="sum")


def seconds(way: Callable[..., Tensor], x_TD: Tensor, weight_VD: Tensor, targets_T: Tensor) -> float:
    """Of one pass and its gradients."""
    started = time.perf_counter()
    way(x_TD, weight_VD, targets_T).backward()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
