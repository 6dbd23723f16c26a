"""Records of runs that never were, with planted losses."""

from typing import Any

import numpy as np

from aunet.config import RunConfig
from aunet.scaling.records import Record, portable

DOCUMENT_BYTES = (900, 2100, 400, 5200, 1300, 700, 3100, 1800)


def config(**train: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"stages": [{"dim": 16, "layers": 1, "head_dim": 8}]},
            "data": {"sources": [{"path": "somewhere/train-*.jsonl"}], "valid": [{"path": "somewhere/valid.jsonl"}]},
            "train": {"bytes": 1e6, "lr": 1e-3, "batch_bytes": 8192, **train},
        }
    )


def scored(bits_per_byte: float, seed: int = 0) -> list[tuple[float, int]]:
    """Documents around this ratio, and of exactly this ratio in total."""
    sizes = np.array(DOCUMENT_BYTES)
    bits = bits_per_byte * sizes * np.random.default_rng(seed).uniform(0.9, 1.1, len(sizes))
    bits *= bits_per_byte * sizes.sum() / bits.sum()
    return [(float(one), int(size)) for one, size in zip(bits, sizes, strict=True)]


def record(name: str = "made-000", bits: float = 2.0, **more: Any) -> Record:
    """A complete one of family `made`; keywords replace keys."""
    lr, batch, seed = more.get("lr", 1e-3), more.get("batch", 8192), more.get("seed", 0)
    complete = more.get("status", "complete") == "complete"
    values: dict[str, Any] = {
        "version": 1,
        "name": name,
        "family": "made",
        "status": "complete",
        "seed": seed,
        "compute_flops": 1e13,
        "paper_flops": 9e12,
        "planned_flops": 1.02 * more.get("compute_flops", 1e13),
        "bits_per_byte": {"valid": bits} if complete else {},
        "documents": {"valid": scored(bits)} if complete else {},
        "parameters": 1_000_000,
        "bytes_read": 3_000_000,
        "epochs": 0.1,
        "bytes_per_second": 50_000.0,
        "seconds": 60.0,
        "steps": 366,
        "lr": lr,
        "batch": batch,
        "batch_bytes": batch * 0.97,
        "gamma": 4.0,
        "config": portable(config(lr=lr, batch_bytes=batch, seed=seed)),
        "data_hash": {"train": "a" * 64, "valid": "b" * 64},
        "code": {"version": "0.1.0", "commit": None, "sources": "c" * 64},
        "hardware": "a machine",
        "date": "2026-01-01",
        "curve": [[1, 8000, 8.1], [366, 3_000_000, bits + 0.05]],
    }
    return Record.model_validate({**values, **more})
