"""What a model costs, counted from its modules: parameters, paper FLOPs, useful FLOPs.

Paper FLOPs per byte (paper, appendix A): 6 for every weight of a matrix and 6 d S for every attention layer of width d,
S the length of the sequence or the window, whichever is smaller; a stage's sum is divided by its bytes per unit. One
upsampling map counts per position, the head counts; the embedding, the look-ups and the norms do not. They are what
budgets are quoted in.

Useful FLOPs: what the mathematics needs on documents of given lengths, forward and backward: 6 for every weight and
position, 12 d for every query and key that it sees, no padding, no masked pairs, nothing recomputed. They are what a
measured speed is divided by. The paper's 6 d S is the causal half of a square; a window that slides is seen whole, so
windowed stages need up to twice that.

The recurrence of Mamba-2 counts alike in both: 6 for every multiply-add that renews its state or reads it out, whatever
a chunked evaluation computes beside that; its convolution counts as a matrix.

A matrix is paid for once per unit of the stage on which it runs. The parts of a model, their stages and modules stand
in one table, `parts`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import cast

import numpy as np
from torch import Tensor, nn

from aunet.config import AUNetConfig
from aunet.model.aunet import AUNet, Stage
from aunet.model.layers import Attention
from aunet.model.mamba import MambaBlock
from aunet.model.upsampling import MultiLinear, Repeat, Simple

LLAMA_BYTES_PER_TOKEN_SQUARED = 20.79
"""k^2 of the Llama 3 tokenizer on DCLM (paper, section 3): a ratio gamma in bytes is k^2 times that in tokens."""


@dataclass(frozen=True)
class Part:
    """Modules of a model that belong together."""

    name: str
    """embedding, lookup, contract, pool, upsample, expand, trunk or head."""
    stage: int
    """The stage (0-based) it is listed under; a transition stands under the shallower of its two stages."""
    modules: tuple[nn.Module, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for module in self.modules for p in module.parameters())


def parts(model: AUNet) -> list[Part]:
    """All parts, from the embedding through the trunk to the head; every parameter belongs to exactly one."""
    down, up = [], []
    for s, module in enumerate(model.stages):
        stage = cast(Stage, module)
        down += [*_lookup(model, s), Part("contract", s, (stage.contract,)), Part("pool", s, (stage.pool,))]
        up += [Part("expand", s, (stage.expand,)), Part("upsample", s, (stage.upsample,))]
    trunk = [*_lookup(model, model.config.depth), Part("trunk", model.config.depth, (model.trunk.blocks,))]
    found = [Part("embedding", 0, (model.embedding,)), *down, *trunk, *reversed(up)]
    found.append(Part("head", 0, (model.norm,) if model.head is None else (model.norm, model.head)))
    total = sum(p.numel() for p in model.parameters())
    assert sum(part.parameters for part in found) == total, "a parameter belongs to no part or to two"
    return found


def _lookup(model: AUNet, stage: int) -> list[Part]:
    lookup = model.lookup(stage)
    return [] if lookup is None else [Part("lookup", stage, (lookup,))]


@dataclass(frozen=True)
class Cost:
    """One matrix product, one attention layer or one recurrence of a part."""

    part: Part
    stage: int
    """The stage whose units pay for it."""
    weights: int = 0
    """Weights of the matrix, or multiply-adds of the recurrence for one position; 0 for attention."""
    width: int = 0
    """Width of the attention layer; 0 for anything else."""
    window: int | None = None


Placing = Callable[[int], int]
UPSAMPLING_STAGE: dict[type[nn.Module], tuple[Placing, Placing]] = {
    MultiLinear: (lambda s: s, lambda s: s),  # W + W_p are added before the product: one map per position
    Repeat: (lambda s: s, lambda s: s + 1),  # W (n + e_p) = W n + W e_p: useful work is one product per unit
    Simple: (lambda s: s + 1, lambda s: s + 1),
}
"""On which stage an upsampling map runs, by variant: in the paper's count, and usefully."""


def costs(model: AUNet, useful: bool) -> list[Cost]:
    """Every matrix and every attention layer with the stage whose units pay for it."""
    found = []
    for part in parts(model):
        stage = part.stage
        if part.name == "head" and model.head is None:  # its weights are counted with the embedding
            found.append(Cost(part, stage, weights=model.head_weight.numel()))
        if part.name == "pool":  # selects first, so the deeper stage's units pay
            stage += 1
        elif part.name == "upsample":
            stage = UPSAMPLING_STAGE[type(part.modules[0])][useful](stage)
        for module in (inner for outer in part.modules for inner in outer.modules()):
            if isinstance(module, nn.Linear | nn.Conv1d):
                found.append(Cost(part, stage, weights=module.weight.numel()))
            elif isinstance(module, MambaBlock):
                found.append(Cost(part, stage, weights=module.recurrence))
            elif isinstance(module, Attention):
                found.append(Cost(part, stage, width=module.out.in_features, window=module.window))
    return found


def paper_flops(model: AUNet, seq_len: int) -> dict[Part, float]:
    """Paper FLOPs per byte of every part, for rows of `seq_len` bytes and the configuration's bytes per unit."""
    stages = model.config.stages
    sums = dict.fromkeys(parts(model), 0.0)
    for cost in costs(model, useful=False):
        contraction = stages[cost.stage].contraction
        keys = min(seq_len / contraction, cost.window or np.inf)
        sums[cost.part] += 6 * (cost.weights + cost.width * keys) / contraction
    return sums


@lru_cache(maxsize=64)
def flops_per_byte(config: AUNetConfig, seq_len: int) -> float:
    """Paper FLOPs per byte, forward and backward; per token if the model reads tokens."""
    return sum(paper_flops(AUNet.on_meta(config), seq_len).values())


def useful_flops(config: AUNetConfig, lengths: Sequence[Sequence[int]]) -> float:
    """Useful FLOPs of one forward and backward pass over documents.

    `lengths`: for every stage the documents' lengths in its units, as `stage_lengths` gives them.
    """
    return sum(useful_flops_by_stage(config, lengths))


def useful_flops_by_stage(config: AUNetConfig, lengths: Sequence[Sequence[int]]) -> list[float]:
    """The same by the stage that a part is listed under."""
    sums = [0.0] * len(config.stages)
    for part, flops in useful_flops_by_part(config, lengths).items():
        sums[part.stage] += flops
    return sums


def useful_flops_by_part(config: AUNetConfig, lengths: Sequence[Sequence[int]]) -> dict[Part, float]:
    """The same by part; those that cost nothing (embedding, look-ups) are left out.

    ValueError where `lengths` is not a list for each stage.
    """
    if len(lengths) != len(config.stages):
        raise ValueError(f"{len(config.stages)} stages need as many lists of lengths, not {len(lengths)}")
    arrays = [np.asarray(stage, dtype=np.float64) for stage in lengths]
    units = [float(array.sum()) for array in arrays]
    pairs = cache(lambda stage, window: visible_pairs(arrays[stage], window))  # layers of a stage see the same
    sums: dict[Part, float] = {}
    for cost in _useful_costs(config):
        attention = cost.width * pairs(cost.stage, cost.window) if cost.width else 0.0
        sums[cost.part] = sums.get(cost.part, 0.0) + 6 * cost.weights * units[cost.stage] + 12 * attention
    return sums


@lru_cache(maxsize=64)
def _useful_costs(config: AUNetConfig) -> list[Cost]:
    return costs(AUNet.on_meta(config), useful=True)


def visible_pairs(lengths: Iterable[float], window: int | None) -> float:
    """Pairs of a query and a key that it sees, itself included, in documents of these lengths.

    >>> visible_pairs([3], None), visible_pairs([3, 4], 2)
    (6.0, 12.0)
    """
    lengths_N = np.asarray(lengths, dtype=np.float64)
    full_N = lengths_N if window is None else np.minimum(lengths_N, window)
    return float((full_N * (full_N + 1) / 2 + (lengths_N - full_N) * full_N).sum())


def expected_lengths(config: AUNetConfig, seq_len: int) -> list[list[int]]:
    """One document of `seq_len` bytes at the configuration's bytes per unit."""
    return [[max(1, round(seq_len / stage.contraction))] for stage in config.stages]


def useful_flops_per_byte(config: AUNetConfig, seq_len: int) -> float:
    """Useful FLOPs per byte of a document of `seq_len` bytes, at the configuration's bytes per unit."""
    return useful_flops(config, expected_lengths(config, seq_len)) / seq_len


def stage_lengths(levels_T: Tensor, starts_N: Tensor, counts: Sequence[int]) -> list[list[int]]:
    """Lengths of the packed documents of a batch at every stage, for `useful_flops`; on the host, none is empty."""
    levels, starts = levels_T.cpu().numpy(), starts_N.cpu().numpy()
    deeper = [np.add.reduceat(levels >= s, starts[:-1], dtype=np.int64).tolist() for s in range(1, len(counts))]
    return [np.diff(starts).tolist(), *deeper]
