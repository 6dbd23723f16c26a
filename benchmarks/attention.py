"""Attention on the CPU, forward and backward: many documents in one call against the same documents one by one.

    python benchmarks/attention.py [--threads 1] [--repetitions 8]

Both ways give the same numbers up to rounding. The best of the interleaved repetitions is shown.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from aunet.model.attention import attention

CASES = {
    "byte stage of 1e13 FLOPs: 28 x 512 bytes, window 64, 2 heads of 12": (28, 512, 64, 2, 12),
    "its trunk: 28 x 110 words, 3 heads of 32": (28, 110, 112, 3, 32),
    "short documents: 200 x 40 bytes, window 64, 2 heads of 12": (200, 40, 64, 2, 12),
    "aunet2-23m: 8 x 8192 bytes, window 512, 4 heads of 32": (8, 8192, 512, 4, 32),
}
"""Documents, positions of each, window, heads, width of a head."""


def main() -> None:
    """Print one row per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads\n\n| case | one by one | together | ratio |")
    print("|---|---|---|---|")
    for name, (documents, length, window, heads, width) in CASES.items():
        qkv = torch.randn(documents * length, 3 * heads, width, requires_grad=True)
        ways = [partial(way, qkv, length, window, heads) for way in (apart, together)]
        slow, fast = best(ways, arguments.repetitions)
        print(f"| {name} | {slow * 1e3:.1f} ms | {fast * 1e3:.1f} ms | {slow / fast:.2f} |")


def together(qkv: Tensor, length: int, window: int, heads: int) -> None:
    """All documents in one call."""
    starts = torch.arange(0, len(qkv) + 1, length)
    attention(*qkv.split(heads, 1), starts, window, length).sum().backward()


def apart(qkv: Tensor, length: int, window: int, heads: int) -> None:
    """Each document in its own."""
    starts = torch.tensor([0, length])
    parts = (attention(*part.split(heads, 1), starts, window, length) for part in qkv.split(length))
    torch.cat(list(parts)).sum().backward()


def best(ways: Sequence[Callable[[], None]], repetitions: int) -> list[float]:
    """The shortest time of each, taken in turns, the first of each left out."""
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(repetitions + 1):
        for way, found in zip(ways, times, strict=True):
            started = time.perf_counter()
            way()
            if turn:
                found.append(time.perf_counter() - started)
    return [min(found) for found in times]


if __name__ == "__main__":
    main()
