"""`aunet plan`: what a run needs of every GPU, what the GPUs exchange, how long it takes, and which settings fit."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Any

import torch

from aunet.config import RunConfig
from aunet.errors import ConfigError
from aunet.model.aunet import AUNet
from aunet.model.flops import expected_lengths, useful_flops_by_stage, useful_flops_per_byte
from aunet.model.lookup import Lookup
from aunet.model.memory import FLOAT
from aunet.planning.gpus import CPU, Gpu, gpu
from aunet.planning.step import HALF, PartName, StepMemory, step_memory
from aunet.planning.traffic import Cluster, StageTraffic, largest, traffic, weights_by_stage
from aunet.train.distributed import Ranks, check, in_order
from aunet.train.measures import product_rate
from aunet.train.plan import make_plan

USABLE = 0.92
"""Share of a GPU's memory that a plan may fill: the rest is for CUDA, kernels' workspaces and gaps."""
ASSUMED_MFU = 0.35
"""Of the data sheet's rate, where nothing was measured: no run of this package on a GPU stands in its documents."""
MEASURED_MFU_CPU = 0.62
"""Of a measured product, eager (docs/performance.md)."""
GATHERED_AT_ONCE = 2
"""Blocks whose weights are whole at one time: the one that runs, and the next, which is on its way."""


@dataclass(frozen=True)
class RankMemory:
    """Bytes of one rank at the worst moment of a step."""

    weights: int
    optimizer: int
    gradients: int
    """Kept at the end of the backward pass."""
    gathered: int
    """Weights that are whole for a moment, and the buffers in which they and their gradients travel."""
    activations: int
    """What the forward pass leaves for the backward pass."""
    total: int
    """At the worst moment. Gradients come while activations go, so this is less than the sum of all, and more than the
    activations alone need, by what a backward pass holds for a moment."""


@dataclass(frozen=True)
class Choice:
    """One way to run it."""

    copies: int
    recompute: tuple[int, ...]
    """Stages (1-based) whose blocks compute their activations again."""
    memory: RankMemory
    fits: bool
    compute_seconds: float
    """Of a step, by the efficiency that is stated."""
    exchange_seconds: float
    """Of a step, by the links' rates."""
    traffic: tuple[StageTraffic, ...]

    @property
    def step_seconds(self) -> float:
        """Where all exchanges hide behind the products, as far as there are enough of them."""
        return max(self.compute_seconds, self.exchange_seconds)


@dataclass(frozen=True)
class Prediction:
    """A run on a cluster."""

    gpu: Gpu
    gpus: int
    per_node: int
    flops_per_second: float
    """Of one GPU: the data sheet's, or measured on this CPU."""
    mfu: float
    mfu_origin: str
    unit: str
    rows: int
    """Of one micro-batch of the rank that has most."""
    steps: int
    batch_bytes: int
    parameters: int
    useful_flops_per_step: float
    activations: dict[PartName, int]
    """Of a micro-batch, without recomputation."""
    as_given: Choice
    """With the configuration's `copies` and `recompute`."""
    taken: Choice
    """The fastest that fits with as little recomputation as possible; where none fits, the smallest."""

    @property
    def bytes_per_second(self) -> float:
        """Expected, of all GPUs, with the choice that is taken."""
        return self.batch_bytes / self.taken.step_seconds

    @property
    def days(self) -> float:
        """Expected, of the whole run."""
        return self.steps * self.taken.step_seconds / 86400

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `json.dumps`."""
        values = asdict(self)
        values["activations"] = [
            {"part": name, "stage": s + 1, "bytes": size} for (name, s), size in self.activations.items()
        ]
        for key, choice in (("as_given", self.as_given), ("taken", self.taken)):
            values[key]["step_seconds"] = choice.step_seconds
        return {**values, "bytes_per_second": self.bytes_per_second, "days": self.days}


def predict(
    config: RunConfig, gpus: int, name: str, per_node: int = 8, mfu: float | None = None, network: float | None = None
) -> Prediction:
    """Plan a run; ConfigError in one line on what cannot be run so.

    `name`: a GPU of `aunet.planning.gpus`; `mfu`: useful FLOPs as a share of the GPU's rate; `network`: bytes per
    second between machines for each GPU, in place of the table's.
    """
    kind = gpu(name)
    if network is not None:
        kind = replace(kind, network=network)
    if mfu is not None and not 0 < mfu <= 1:
        raise ConfigError(f"--mfu: {mfu:g} is not a share; give for instance 0.4")
    if kind.name == CPU:
        kind = replace(kind, flops=product_rate(torch.device(CPU), _dtype(config)) / gpus, memory=kind.memory / gpus)
    elif config.train.precision != "bf16":
        raise ConfigError("train.precision: the rates of GPUs here are those of bf16; add train.precision=bf16")
    plan = make_plan(config)
    check(config, Ranks(0, gpus), plan.rows_per_step)
    config = _on(kind, config)
    efficiency, origin = (mfu, "given") if mfu else _default_mfu(kind)
    per_rank = ceil(plan.rows_per_step / gpus)
    rows = ceil(per_rank / config.train.accumulate)
    candidates = _Candidates(config, Cluster(kind, gpus, per_node), rows, per_rank, efficiency)
    again = tuple(s for s, chosen in enumerate(config.train.recompute, 1) if chosen)
    given = candidates.choice(config.train.copies, again)
    return Prediction(
        gpu=kind,
        gpus=gpus,
        per_node=per_node,
        flops_per_second=kind.flops,
        mfu=efficiency,
        mfu_origin=origin,
        unit=config.model.unit,
        rows=rows,
        steps=plan.steps,
        batch_bytes=plan.batch_bytes,
        parameters=candidates.parameters,
        useful_flops_per_step=plan.batch_bytes * useful_flops_per_byte(config.model, config.data.seq_len),
        activations=candidates.step(()).activations,
        as_given=given,
        taken=candidates.best(),
    )


def _on(kind: Gpu, config: RunConfig) -> RunConfig:
    """The run on what is planned for, wherever its configuration has it: CUDA keeps more than the CPU does."""
    train = config.train.model_copy(update={"device": CPU if kind.name == CPU else "cuda"})
    return config.model_copy(update={"train": train})


def _dtype(config: RunConfig) -> torch.dtype:
    return torch.bfloat16 if config.train.precision == "bf16" else torch.float32


def _default_mfu(kind: Gpu) -> tuple[float, str]:
    if kind.name == CPU:
        return MEASURED_MFU_CPU, "measured on a CPU, docs/performance.md"
    return ASSUMED_MFU, "assumed: nothing was measured on GPUs; give --mfu"


class _Candidates:
    """All ways to run one configuration on one cluster."""

    def __init__(self, config: RunConfig, cluster: Cluster, rows: int, rows_per_step: int, mfu: float) -> None:
        self._config, self._cluster, self._rows, self._mfu = config, cluster, rows, mfu
        self._model = AUNet.on_meta(config.model)
        self.parameters = sum(p.numel() for p in self._model.parameters())
        self._positions = [
            max(rows, round(rows * config.data.seq_len / stage.contraction)) for stage in config.model.stages
        ]
        of_row = useful_flops_by_stage(config.model, expected_lengths(config.model, config.data.seq_len))
        self._flops = [rows_per_step * flops for flops in of_row]
        """Of the rank that has most rows, in a step."""
        self.step = lru_cache(self._step)

    def _step(self, recompute: tuple[int, ...]) -> StepMemory:
        return step_memory(self._config.model, self._config.train, self._positions, self._rows, recompute)

    def choice(self, copies: int, recompute: tuple[int, ...]) -> Choice:
        memory = memory_of_rank(self._config, self._model, self._cluster.count, copies, self.step(recompute))
        exchanged = traffic(
            self._model, self._cluster, copies, self._config.train.accumulate, _gathered_size(self._config)
        )
        again = sum(self._flops[s - 1] for s in recompute) / 3  # a forward pass is a third of all
        kind = self._cluster.gpu
        return Choice(
            copies=copies,
            recompute=recompute,
            memory=memory,
            fits=memory.total <= USABLE * kind.memory,
            compute_seconds=(sum(self._flops) + again) / (kind.flops * self._mfu),
            exchange_seconds=exchanged.seconds if self._cluster.count > 1 else 0.0,
            traffic=exchanged.stages,
        )

    def best(self) -> Choice:
        found: list[Choice] = []
        for recompute in self._recomputations():
            choices = [self.choice(copies, recompute) for copies in _divisors(self._cluster.count)]
            fitting = [choice for choice in choices if choice.fits]
            if fitting:
                return min(fitting, key=lambda choice: (choice.step_seconds, choice.copies))
            found += choices
        return min(found, key=lambda choice: choice.memory.total)

    def _recomputations(self) -> Iterator[tuple[int, ...]]:
        """None, then the stages whose blocks keep most, one after the other."""
        yield ()
        kept = {}
        for s in range(1, len(self._config.model.stages) + 1):
            of_stage = self.step(()).activations
            kept[s] = sum(of_stage.get((name, s - 1), 0) for name in ("contract", "expand", "trunk"))
        order = sorted(kept, key=lambda s: -kept[s])
        for count in range(1, len(order) + 1):
            yield tuple(sorted(order[:count]))


def rank_memory(config: RunConfig, ranks: int, counts: Sequence[int], rows: int) -> RankMemory:
    """Memory of one of `ranks` processes whose micro-batches are `rows` rows of `counts` units per stage."""
    step = step_memory(config.model, config.train, counts, rows)
    return memory_of_rank(config, AUNet.on_meta(config.model), ranks, config.train.copies, step)


def memory_of_rank(config: RunConfig, model: AUNet, ranks: int, copies: int, step: StepMemory) -> RankMemory:
    """The same from the memory of the step of a whole copy, whose weights `ranks / copies` processes share."""
    parts = ranks // copies
    # Until the last micro-batch gradients are added up whole.
    share = 1.0 if ranks > 1 and config.train.accumulate > 1 else 1 / parts
    tables = FLOAT * sum(module.weight.numel() for module in model.modules() if isinstance(module, Lookup))
    layers = FLOAT * sum(p.numel() for p in model.parameters()) - tables
    weights = layers // parts + tables // ranks + sum(buffer.nbytes for buffer in model.buffers())
    optimizer = (step.optimizer - 2 * tables) // parts + 2 * tables // ranks
    gathered = gathered_bytes(model, _gathered_size(config)) if ranks > 1 else 0
    return RankMemory(
        weights=weights,
        optimizer=optimizer,
        gradients=round(step.gradients * share),
        gathered=gathered,
        activations=sum(step.activations.values()),
        total=weights + optimizer + gathered + step.peak(share),
    )


def _gathered_size(config: RunConfig) -> int:
    """Bytes of a number of a block that is whole for a moment."""
    return HALF if config.train.precision == "bf16" else FLOAT


def gathered_bytes(model: AUNet, size: int = FLOAT) -> int:
    """What a rank holds of weights that are cut up, beside its own part, and the buffers of one exchange.

    What belongs to the model itself is whole from the forward to the backward pass; of what is gathered by itself two
    are whole at a time, and a third is in the buffer in which it arrives, or its gradients leave.
    """
    _, rest = weights_by_stage(model)
    return sum(rest) + (GATHERED_AT_ONCE + 1) * largest(in_order(model)) * size // FLOAT


def _divisors(count: int) -> list[int]:
    return [copies for copies in range(1, count + 1) if count % copies == 0]
