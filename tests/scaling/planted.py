"""A made-up race: records of families whose losses, learning rates and batch sizes follow planted laws."""

import math
from dataclasses import dataclass

import numpy as np

from aunet.scaling.points import Point, sobol_point
from aunet.scaling.records import Record, portable
from tests.scaling.made_records import config, record, scored

FAMILIES = {"bpe-4k": (0.80, 55.0, 0.130), "aunet-2": (0.78, 60.0, 0.132), "transformer-bytes": (0.90, 62.0, 0.125)}
"""E, a, b of the loss by family."""
BATCH_LAW, LR_LAW = (0.66, 0.321), (6.6, -0.176)
SHIFT = {"bpe-4k": 0.3, "aunet-2": 1.0, "transformer-bytes": 1.8}
"""What the optimal batch size is multiplied by."""


@dataclass(frozen=True)
class World:
    """A family at a budget, and what its runs would come to."""

    family: str
    compute: float
    noise: np.random.Generator

    @property
    def lr(self) -> float:
        return LR_LAW[0] * self.compute ** LR_LAW[1] / 8

    @property
    def batch(self) -> float:
        return SHIFT[self.family] * BATCH_LAW[0] * self.compute ** BATCH_LAW[1]

    def bits(self, point: Point, size: float = 1.0) -> float:
        E, a, b = FAMILIES[self.family]
        off = 0.02 * math.log(point.lr / self.lr) ** 2 + 0.01 * math.log(point.batch / self.batch) ** 2
        off += 0.01 * math.log(size) ** 2
        return (E + a * self.compute**-b) * (1 + off) * math.exp(0.002 * self.noise.standard_normal())

    def run(self, name: str, point: Point, seed: int = 0, size: float = 1.0) -> Record:
        bits, spent = self.bits(point, size), self.compute * self.noise.uniform(0.98, 1.02)
        batch = max(1, round(point.batch))
        values = portable(config(lr=point.lr, batch_bytes=batch, seed=seed))
        values["model"]["stages"][0]["dim"] = round(16 * size)
        parameters = round(3e5 * math.sqrt(self.compute / 1e13) * size)
        return record(
            f"{self.family}-{name}",
            bits,
            family=self.family,
            lr=point.lr,
            batch=batch,
            seed=seed,
            compute_flops=spent,
            paper_flops=0.9 * spent,
            planned_flops=self.compute,
            parameters=parameters,
            bytes_read=round(spent / 6 / parameters),
            config=values,
            bits_per_byte={"novels": bits, "scripture": 1.1 * bits},
            documents={"novels": scored(bits), "scripture": scored(1.1 * bits, 1)},
        )


def race(budgets: tuple[float, ...] = (1e13, 3e13, 1e14, 3e14, 1e15), points: int = 6) -> list[Record]:
    """Each family at each budget: a sweep, its best repeated with another seed and in two more sizes; one failure."""
    noise = np.random.default_rng(0)
    found = []
    for f, family in enumerate(FAMILIES):
        for k, compute in enumerate(budgets):
            world = World(family, compute, noise)
            ranges = (world.lr / 5, world.lr * 5), (world.batch / 4, world.batch * 4)
            tried = [sobol_point(*ranges, f + 10 * k, i) for i in range(points)]
            swept = [world.run(f"{k}-{i:03d}", point) for i, point in enumerate(tried)]
            best = tried[int(np.argmin([run.bits_per_byte["novels"] for run in swept]))]
            sizes = [world.run(f"{k}-size-{size}", best, size=size) for size in (0.5, 2.0)]
            found += [*swept, world.run(f"{k}-again", best, seed=1), *sizes]
        failed = {"status": "failed", "reason": "step 12: the loss is nan; lower train.lr", "lr": 0.1}
        spent = {"planned_flops": budgets[0], "compute_flops": budgets[0] / 9}
        found.append(record(f"{family}-failed", family=family, **failed, **spent))
    return found
