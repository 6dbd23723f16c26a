"""How long a run is, how large its steps are and how its learning rate moves (paper, section 3 and appendix B)."""

import math
from dataclasses import dataclass

from aunet.config import LENGTHS, RunConfig
from aunet.errors import ConfigError
from aunet.model.flops import LLAMA_BYTES_PER_TOKEN_SQUARED, flops_per_byte
from aunet.paper_laws import LAW_RANGE, LAWS


@dataclass(frozen=True)
class Plan:
    """A run in numbers, counted in the ids that the model reads: bytes, or tokens for a model over tokens."""

    steps: int
    rows_per_step: int
    batch_bytes: int
    """Ids of a step at most, rows_per_step times seq_len.

    Rows end where documents do, so it holds less, and runs by bytes, compute or gamma read less than they say.
    """
    lr: float
    """Highest learning rate."""
    lr_floor: float
    """Last learning rate."""
    warmup_steps: int
    bytes: int
    """Ids of the run at most, with every row full, as all of the following."""
    flops_per_byte: float
    """Paper FLOPs, per id."""
    compute: float
    """Paper FLOPs of the run."""
    gamma: float
    """Data-to-model ratio, bytes / F, in Llama 3 tokens."""


def make_plan(config: RunConfig) -> Plan:
    """Resolve a configuration; raises ConfigError that names the keys to set."""
    train, seq_len = config.train, config.data.seq_len
    if all(getattr(train, name) is None for name in LENGTHS):
        raise ConfigError(f"the length of the run is missing; set one of {', '.join(f'train.{n}' for n in LENGTHS)}")
    flops = flops_per_byte(config.model, seq_len)
    # A model over token ids has units of tokens, in which gamma needs no conversion.
    gamma_scale = LLAMA_BYTES_PER_TOKEN_SQUARED if config.model.unit == "byte" else 1.0
    batch, wanted = _batch_and_bytes(config, flops, gamma_scale)
    _check_laws(config, wanted * flops)
    rows = max(1, round(batch / seq_len))
    if rows < train.accumulate:
        raise ConfigError(
            f"train.accumulate: {train.accumulate} micro-batches need as many rows, but train.batch_bytes {batch:g} is "
            f"{rows} {'row' if rows == 1 else 'rows'} of data.seq_len {seq_len}; lower one or raise the other"
        )
    steps = train.steps or max(1, round(wanted / (rows * seq_len)))
    total = steps * rows * seq_len
    lr = train.lr or LAWS[config.model.unit].lr(total * flops)
    return Plan(
        steps=steps,
        rows_per_step=rows,
        batch_bytes=rows * seq_len,
        lr=lr,
        lr_floor=lr * train.lr_floor,
        warmup_steps=_warmup_steps(train.warmup, steps),
        bytes=total,
        flops_per_byte=flops,
        compute=total * flops,
        gamma=total / flops / gamma_scale,
    )


def _batch_and_bytes(config: RunConfig, flops: float, gamma_scale: float) -> tuple[float, float]:
    """Bytes per step and bytes of the run, before they are made whole rows and whole steps."""
    train, law = config.train, LAWS[config.model.unit].batch
    if train.steps is not None:
        batch = train.batch_bytes or law.solved(train.steps * flops)
        return batch, train.steps * batch
    if train.bytes is not None:
        wanted = train.bytes
    elif train.compute is not None:
        wanted = train.compute / flops
    else:
        assert train.gamma is not None
        wanted = train.gamma * gamma_scale * flops
    return train.batch_bytes or law(wanted * flops), wanted


def _check_laws(config: RunConfig, compute: float) -> None:
    """The laws are defaults only where they were fitted: they give a learning rate of 0.03 at 1e13 FLOPs."""
    missing = [f"train.{name}" for name in ("lr", "batch_bytes") if getattr(config.train, name) is None]
    laws, (low, high) = LAWS[config.model.unit], LAW_RANGE
    if missing and not low <= float(f"{compute:.0e}") <= high:
        raise ConfigError(
            f"set {' and '.join(missing)}: the run takes {compute:.2g} FLOPs, and the paper's laws for them hold from "
            f"{low:.0e} to {high:.0e} only (here they would give lr {laws.lr(compute):.2g}, "
            f"batch_bytes {laws.batch(compute):.0f})"
        )


def _warmup_steps(warmup: float, steps: int) -> int:
    """A share of the steps below 1, a number of steps from 1 on; the last step stays outside."""
    if warmup < 1:
        return min(round(warmup * steps), steps - 1)
    if round(warmup) >= steps:
        raise ConfigError(
            f"train.warmup: {warmup:g} steps do not fit before the last of {steps}; give fewer, or a share below 1"
        )
    return round(warmup)


def learning_rate(plan: Plan, step: int) -> float:
    """Learning rate of step 0 .. steps - 1: linear to the highest, then a cosine to the floor at the last step."""
    if step < plan.warmup_steps:
        return plan.lr * (step + 1) / plan.warmup_steps
    peak = max(plan.warmup_steps - 1, 0)
    share = (step - peak) / max(plan.steps - 1 - peak, 1)
    return plan.lr_floor + (plan.lr - plan.lr_floor) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
