"""What a run measures of itself: speed, waiting, memory, norms of gradients, and the rate that its device could give.

Nothing here waits for a device or another rank in a step that is not logged.
"""

import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from aunet.files import write_json
from aunet.model.aunet import AUNet
from aunet.model.flops import parts
from aunet.train.distributed import Ranks
from aunet.train.tables import CutLookup

PEAK = "peak.json"
LARGEST_PRODUCT = 8192
"""Rows of the largest product that is timed: what an H100 needs to come close to its best."""
LONG_ENOUGH = 0.02
"""Seconds of a product whose time says something."""


@dataclass
class Interval:
    """What this rank has done since the last line of the metrics."""

    seconds: float = 0.0
    bytes: int = 0
    """That it read itself."""
    waited: float = 0.0
    """Seconds without rows to train on."""
    useful_flops: float = 0.0
    """Of all ranks."""

    def report(self, ranks: Ranks, device: torch.device, peak: float | None) -> dict[str, Any]:
        """Values for the metrics, from one exchange between the ranks; `peak`: FLOP/s of one, for MFU.

        MFU is useful FLOPs, forward and backward, of all ranks, by what their products alone would give in that time.
        What is computed twice to save memory does not count, and neither does padding.
        """
        seconds = max(self.seconds, 1e-9)
        mine = [self.bytes / seconds, self.waited / seconds, *peak_memory(device).values()]
        rates, waits, *memory = zip(*ranks.gather(mine), strict=True)
        found: dict[str, Any] = {
            "interval_bytes_per_second": sum(rates),
            "bytes_per_second_by_rank": [round(rate) for rate in rates],
            "data_wait_share": max(waits),
        }
        if peak:
            found["mfu"] = self.useful_flops / seconds / (peak * ranks.count)
        worst = (int(max(of_ranks)) for of_ranks in memory)
        return {**found, **dict(zip(peak_memory(device), worst, strict=True))}


def peak_memory(device: torch.device) -> dict[str, float]:
    """Bytes at the most since the process began: resident on the host, and on CUDA what the allocator gave and held."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    found: dict[str, float] = {"peak_rss": resident}
    if device.type == "cuda":
        found["peak_allocated"] = torch.cuda.max_memory_allocated(device)
        found["peak_reserved"] = torch.cuda.max_memory_reserved(device)
    return found


@torch.no_grad()
def gradient_norms(model: AUNet) -> Tensor:
    """Norm of the gradients of every stage's parameters, on the device: [stages].

    As in `aunet.model.flops.parts`, the embedding and the head belong to the byte stage, a transition to the shallower
    of its two stages. Of parameters that are cut up among ranks it is that of the whole, by one exchange.
    """
    cut: list[list[Tensor]] = [[] for _ in model.config.stages]
    tables: list[list[Tensor]] = [[] for _ in model.config.stages]
    whole: list[list[Tensor]] = [[] for _ in model.config.stages]
    copies = 0
    for part in parts(model):
        for module in part.modules:
            for gradient in (p.grad for p in module.parameters() if p.grad is not None):
                if isinstance(gradient, DTensor):
                    mesh = gradient.device_mesh
                    copies = mesh.size(0) if mesh.ndim > 1 else 1
                    cut[part.stage].append(gradient.to_local())
                elif gradient.is_sparse:
                    kept = tables if isinstance(module, CutLookup) else whole
                    kept[part.stage].append(gradient.coalesce().values())
                else:
                    whole[part.stage].append(gradient)
    device = model.norm.weight.device
    if copies:
        squares = _squares(cut, device) / copies + _squares(tables, device)  # columns of a table have no copies
        distributed.all_reduce(squares)
    else:
        squares = _squares(whole, device)
    return squares.sqrt()


def _squares(gradients: list[list[Tensor]], device: torch.device) -> Tensor:
    return torch.stack([_square(of_stage, device) for of_stage in gradients])


def _square(gradients: list[Tensor], device: torch.device) -> Tensor:
    return nn.utils.get_total_norm(gradients).square() if gradients else torch.zeros((), device=device)


def peak_rate(directory: Path, device: torch.device, precision: str) -> float:
    """FLOP/s of a matrix product on this device at this precision and with these threads.

    Measured in less than a second, once for a run: what was measured stands in its directory, and is measured again
    where device, precision or threads are others.
    """
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    of = {"device": kind, "precision": precision, "threads": torch.get_num_threads() if kind == "cpu" else 0}
    path = directory / PEAK
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if {key: found[key] for key in of} == of and found["flops_per_second"] > 0:
            return float(found["flops_per_second"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    rate = product_rate(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    write_json(path, {**of, "flops_per_second": rate})
    return rate


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The best of a few square products, each twice as wide as the one before until one takes long enough."""
    size, best = 256, 0.0
    while True:
        square = torch.ones((size, size), device=device, dtype=dtype)
        times = [_product_seconds(square) for _ in range(4)]
        best = max(best, 2 * size**3 / min(times))
        if min(times) >= LONG_ENOUGH or size >= LARGEST_PRODUCT:
            return best
        size *= 2


def _product_seconds(square: Tensor) -> float:
    for_device = square.device
    if for_device.type == "cuda":
        torch.cuda.synchronize(for_device)
    started = time.perf_counter()
    square @ square
    if for_device.type == "cuda":
        torch.cuda.synchronize(for_device)
    return max(time.perf_counter() - started, 1e-9)
