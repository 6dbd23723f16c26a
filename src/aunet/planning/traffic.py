"""What the ranks of a run exchange in a step, and how long it takes on its links.

Counted from the modules that `aunet.train.distributed.shard` cuts up, in the order of its mesh: ranks that share a copy
of the weights are neighbours. Volumes are what one GPU receives, by ring algorithms: of n ranks that gather or
scatter B bytes each receives B (n - 1) / n, of c that sum B bytes each receives 2 B (c - 1) / c.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from aunet.model.aunet import AUNet
from aunet.model.flops import parts
from aunet.model.memory import FLOAT
from aunet.planning.gpus import Gpu
from aunet.train.distributed import in_order


@dataclass(frozen=True)
class Cluster:
    """So many of one GPU, `per_node` to a machine."""

    gpu: Gpu
    count: int
    per_node: int

    def rate(self, members: int, distance: int) -> float:
        """Bytes per second that a GPU of a group of `members`, every `distance`-th one, receives.

        Inside a machine it is the link. Of a group that spans machines a ring enters each of them once, and each of
        its members there brings its own network.
        """
        if (members - 1) * distance < self.per_node:
            return self.gpu.link
        here = max(1, self.per_node // distance)
        return min(self.gpu.link, here * self.gpu.network)


@dataclass(frozen=True)
class StageTraffic:
    """Bytes that one GPU receives in a step, for the modules of one stage."""

    all_gather: float
    reduce_scatter: float
    all_reduce: float


@dataclass(frozen=True)
class Traffic:
    """What one GPU receives in a step."""

    stages: tuple[StageTraffic, ...]
    seconds: float
    """Of all of it, one after the other."""


def traffic(model: AUNet, cluster: Cluster, copies: int, accumulate: int, size: int = FLOAT) -> Traffic:
    """Exchanges of a step. Gradients travel in fp32 and once a step, whatever `accumulate`.

    `size`: bytes of a number of a block that is gathered. What look-ups exchange is not counted.
    """
    parts_of_copy = cluster.count // copies
    cut, summed = (parts_of_copy - 1) / parts_of_copy, 2 * (copies - 1) / copies / parts_of_copy
    found = []
    for alone, rest in zip(*weights_by_stage(model), strict=True):
        # Forward and backward each gather a block; what belongs to the model itself stays from one to the other.
        gathered = accumulate * (2 * alone * size / FLOAT + rest) * cut
        found.append(StageTraffic(gathered, (alone + rest) * cut, (alone + rest) * summed))
    within = sum(stage.all_gather + stage.reduce_scatter for stage in found)
    between = sum(stage.all_reduce for stage in found)
    seconds = within / cluster.rate(parts_of_copy, 1) + between / cluster.rate(copies, parts_of_copy)
    return Traffic(tuple(found), seconds)


def weights_by_stage(model: AUNet) -> tuple[list[int], list[int]]:
    """Bytes of the weights of every stage that are gathered block by block, and of those gathered with the model.

    Look-ups are neither: every rank keeps its columns.
    """
    apart = {id(p) for module in in_order(model) for p in module.parameters()}
    alone, rest = ([0] * len(model.config.stages) for _ in range(2))
    for part in (part for part in parts(model) if part.name != "lookup"):
        for parameter in (p for module in part.modules for p in module.parameters()):
            (alone if id(parameter) in apart else rest)[part.stage] += FLOAT * parameter.numel()
    return alone, rest


def largest(modules: Sequence[nn.Module]) -> int:
    """Bytes of the weights of the largest of these modules."""
    return max((FLOAT * sum(p.numel() for p in module.parameters()) for module in modules), default=0)
