"""A made-up race: records of families whose losses, learning rates and batch sizes follow planted laws."""

import math

import numpy as np

from aunet.scaling.points import sobol_point
from aunet.scaling.records import Record, portable
from tests.scaling.made_records import config, record, scored

FAMILIES = {"bpe-4k": (0.80, 55.0, 0.130), "aunet-2": (0.78, 60.0, 0.132), "transformer-bytes": (0.90, 62.0, 0.125)}
"""E, a, b of the loss by family."""
BATCH_LAW, LR_LAW = (0.66, 0.321), (6.6, -0.176)
SHIFT = {"bpe-4k": 0.3, "aunet-2": 1.0, "transformer-bytes": 1.8}
"""What the optimal batch size is multiplied by."""


def race(
    budgets: tuple[float, ...] = (1e13, 3e13, 1e14, 3e14), points: int = 6, seeds: int = 2, noise: float = 0.002
) -> list[Record]:
    """Each family at each budget: a sweep, the best of it repeated, one run that failed, one other size."""
    generator = np.random.default_rng(0)
    found = []
    for f, (family, (E, a, b)) in enumerate(FAMILIES.items()):
        for k, compute in enumerate(budgets):
            lr_best = LR_LAW[0] * compute ** LR_LAW[1] / 8
            batch_best = SHIFT[family] * BATCH_LAW[0] * compute ** BATCH_LAW[1]
            tried = [
                sobol_point((lr_best / 5, lr_best * 5), (batch_best / 4, batch_best * 4), f + 10 * k, i)
                for i in range(points)
            ]

            def loss(lr: float, batch: float, compute: float = compute) -> float:
                off = 0.02 * math.log(lr / lr_best) ** 2 + 0.01 * math.log(batch / batch_best) ** 2
                return (E + a * compute**-b) * (1 + off) * math.exp(noise * generator.standard_normal())

            best = min(tried, key=lambda point: loss(*point))
            runs = [(point, 0, 1.0) for point in tried] + [(best, seed, 1.0) for seed in range(1, seeds)]
            runs += [(best, 0, 0.5), (best, 0, 2.0)]
            for i, ((lr, batch), seed, size) in enumerate(runs):
                bits = loss(lr, batch) * (1 + 0.01 * math.log(size) ** 2)
                spent = compute * generator.uniform(0.98, 1.02)
                dim = {0.5: 8, 1.0: 16, 2.0: 32}[size]
                values = portable(config(lr=lr, batch_bytes=round(batch), seed=seed))
                values["model"]["stages"][0]["dim"] = dim
                parameters = round(3e5 * math.sqrt(compute / 1e13) * size * (1 + f / 4))
                found.append(
                    record(
                        f"{family}-{k}-{i:03d}",
                        bits,
                        family=family,
                        lr=lr,
                        batch=max(1, round(batch)),
                        seed=seed,
                        compute_flops=spent,
                        paper_flops=0.9 * spent,
                        planned_flops=compute,
                        parameters=parameters,
                        bytes_read=round(spent / 6 / parameters),
                        config=values,
                        bits_per_byte={"novels": bits, "scripture": 1.1 * bits},
                        documents={"novels": scored(bits), "scripture": scored(1.1 * bits, 1)},
                    )
                )
        found.append(
            record(
                f"{family}-failed",
                family=family,
                status="failed",
                reason="step 12: the loss is nan, the gradient norm nan; lower train.lr (now 0.1)",
                lr=0.1,
                planned_flops=budgets[0],
                compute_flops=budgets[0] / 9,
            )
        )
    return found
