"""The systems that are compared, and what each looks like at a budget.

A family gives a shape for a number of useful FLOPs per byte. The paper's own budgets have the shapes of its Table 9;
elsewhere a shape follows the proportions of that table as far as whole layers and heads allow:

- the byte stage is a quarter as wide as stage 2, stage 3 is 1.5 times and stage 4 2.25 times as wide as stage 2;
- the deepest stage (in a Transformer: the only one) has about one layer for every 90 of its width;
- Mamba-2 has one for every 41;
- a stage that is not the deepest has 3 + 3 layers from a width of 512 of stage 2 on, 2 + 2 from 256 on, 1 + 1 below.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aunet.config import AUNetConfig, StageConfig
from aunet.errors import ConfigError
from aunet.model.flops import expected_lengths, useful_flops_by_part
from aunet.presets import AUNET2_SCALING, AUNET3_SCALING, TRANSFORMER_SCALING
from aunet.scaling.text import Text

WIDTH_PER_LAYER = {"attention": 90, "mamba2": 41}
LAYER_FLOPS = {"attention": 72, "mamba2": 36}
"""Useful FLOPs that a layer of width d takes per unit at least, over d^2."""
WIDTHS = (1.0, 1.5, 2.25)
"""Of stages 2, 3 and 4, relative to stage 2."""
FLOPS_WEIGHT = 16.0
"""How much more a deviation from the FLOPs counts than one from the proportions, both as logarithms."""
LARGEST = 1e13
"""Useful FLOPs per byte that are planned at most: wider and deeper models no configuration holds."""


@dataclass(frozen=True)
class Family:
    """A system: how many stages, what splits, and the paper's table of its shapes."""

    name: str
    description: str
    rules: tuple[str, ...] = ()
    """Splitting rule of each level."""
    table: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None
    """Widths and layers of the paper by budget."""
    tokens: bool = False
    """Over the ids of a tokenizer, which must be given."""
    mixer: str = "attention"

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.rules) + 1


def _transformer_table() -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    return {budget: ((dim,), (layers,)) for budget, (dim, layers) in TRANSFORMER_SCALING.items()}


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("aunet-2", "bytes, words", ("word1",), dict(AUNET2_SCALING)),
        Family("aunet-3", "bytes, words, pairs of words", ("word1", "word2"), dict(AUNET3_SCALING)),
        Family("aunet-4", "bytes, words, pairs and fours of words", ("word1", "word2", "word4")),
        Family("bytes", "Transformer on bytes"),
        Family("bpe", "Transformer on the tokens of a tokenizer", table=_transformer_table(), tokens=True),
        Family("fixed-4", "Transformer on bytes, pooled every 4 bytes", ("fixed-4",)),
        Family("fixed-5", "Transformer on bytes, pooled every 5 bytes", ("fixed-5",)),
        Family("fixed-6", "Transformer on bytes, pooled every 6 bytes", ("fixed-6",)),
        Family("mamba", "Mamba-2 on bytes", mixer="mamba2"),
    )
}


def family(name: str) -> Family:
    """A family by its name; ConfigError lists them all."""
    if name not in FAMILIES:
        raise ConfigError(f"--family: no family {name!r}; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def shape(kind: Family, flops_per_byte: float, text: Text) -> AUNetConfig:
    """The shape of a family whose useful FLOPs per byte, head included, are as near as its proportions allow.

    ConfigError where not even the smallest shape is that small, or none is that large.
    """
    if flops_per_byte > LARGEST:
        raise ConfigError(
            f"--compute: the budget asks for {flops_per_byte:.2g} FLOPs per byte, the most that is planned is "
            f"{LARGEST:.0e}; lower --compute or raise --gamma"
        )
    found = _candidates(kind, text, flops_per_byte)
    dims, layers, flops = min(found, key=lambda one: _distance(kind, one[0], one[1], one[2], flops_per_byte))
    if flops > 1.5 * flops_per_byte:
        raise ConfigError(
            f"--compute: the smallest {kind.name} takes {flops:.2g} FLOPs per byte, the budget allows "
            f"{flops_per_byte:.2g}; raise --compute or lower --gamma"
        )
    return build(kind, dims, layers, text)


def _distance(kind: Family, dims: Sequence[int], layers: Sequence[int], flops: float, wanted: float) -> float:
    proportion = dims[-1] / layers[-1] / WIDTH_PER_LAYER[kind.mixer]
    return FLOPS_WEIGHT * abs(math.log(flops / wanted)) + abs(math.log(proportion))


def paper_shape(kind: Family, compute: float, text: Text) -> AUNetConfig | None:
    """The shape of the paper's table for this budget, if it has one: attention reaches over the whole row there."""
    rows = (row for budget, row in (kind.table or {}).items() if math.isclose(float(budget), compute))
    found = next(rows, None)
    if found is None:
        return None
    built = build(kind, *found, text)
    stages = []
    for s, stage in enumerate(built.stages):
        byte_stage = s == 0 and bool(kind.rules)
        change = {"head_dim": 64} if byte_stage else {"head_dim": 128, "window": None}
        stages.append(stage.model_copy(update=change))
    return built.model_copy(update={"stages": tuple(stages)})


def build(kind: Family, dims: Sequence[int], layers: Sequence[int], text: Text) -> AUNetConfig:
    """The architecture of a family with these widths and layers; attention reaches over one row and no further."""
    stages = []
    for s, (dim, count) in enumerate(zip(dims, layers, strict=True)):
        contraction = _contraction(kind, s, text)
        if kind.mixer == "mamba2":
            stages.append(_mamba(dim, count, contraction))
            continue
        reach = max(1, round(text.seq_len / (contraction * text.bytes_per_token)))
        window = byte_window(text.seq_len) if s == 0 and kind.rules else reach
        stages.append(
            StageConfig(dim=dim, layers=count, head_dim=_head_dim(dim, s), window=window, contraction=contraction)
        )
    splitter = "+".join(kind.rules)
    return AUNetConfig(stages=tuple(stages), splitter=splitter, vocab_size=text.vocab_size, tokenizer=text.tokenizer)


def byte_window(seq_len: int) -> int:
    """Bytes that a byte sees at the byte stage: the paper's 512 of 8192 at most, an eighth of shorter rows."""
    return min(512, max(64, seq_len // 8))


def _candidates(kind: Family, text: Text, flops_per_byte: float) -> Iterator[tuple[list[int], list[int], float]]:
    """Widths, layers and useful FLOPs per byte."""
    # A trunk has one layer at least, and at least half of those that go with its width: no wider one can fit. Much
    # narrower ones take too little, but for models over tokens, where the head may take nearly all.
    units = _contraction(kind, kind.stages - 1, text) * text.bytes_per_token
    most = 1.5 * flops_per_byte * units / LAYER_FLOPS[kind.mixer]
    widest = min(math.sqrt(most), (2 * WIDTH_PER_LAYER[kind.mixer] * most) ** (1 / 3))
    narrowest = 0.0 if kind.tokens else widest / 6
    fewest = 1 if kind.rules else 2
    of_stage_2 = WIDTHS[max(0, kind.stages - 2)]
    for width in _widths(narrowest / of_stage_2, widest / of_stage_2):
        dims = _dims(kind, width)
        shallow = [_shallow_layers(width)] * (kind.stages - 1)
        smallest = build(kind, dims, [*shallow, 1], text)
        flops = useful_flops_by_part(smallest, expected_lengths(smallest, text.row_ids))
        one, of_layer = sum(flops.values()), sum(value for part, value in flops.items() if part.name == "trunk")
        proportional = dims[-1] / WIDTH_PER_LAYER[kind.mixer]
        for count in range(max(fewest, round(proportional / 2)), max(2, round(2 * proportional)) + 1):
            yield dims, [*shallow, count], (one + (count - 1) * of_layer) / text.row_ids / text.bytes_per_token


def _step(width: float) -> int:
    """Widths are multiples of this."""
    return 8 if width < 128 else 16 if width < 256 else 64 if width < 1024 else 128


def _widths(narrowest: float, widest: float) -> Iterator[int]:
    width = max(24, round(narrowest / _step(narrowest)) * _step(narrowest))
    yield width
    while width < widest:
        width += _step(width)
        yield width


def _dims(kind: Family, width: int) -> list[int]:
    """Widths of all stages where stage 2 (in a Transformer: the only stage) has this one."""
    if kind.stages == 1:
        return [width]
    step = _step(width)
    deeper = [round(width * ratio / step) * step for ratio in WIDTHS[: kind.stages - 1]]
    bytes_step = max(8, step // 2) if width < 1024 else 128
    return [max(16, round(width / 4 / bytes_step) * bytes_step), *deeper]


def _shallow_layers(width: int) -> int:
    return 3 if width >= 512 else 2 if width >= 256 else 1


def _head_dim(dim: int, stage: int) -> int:
    """The paper's 64 at the byte stage and 128 deeper; below, the largest even divisor of at most a third or so."""
    wanted = 64 if stage == 0 and dim < 1024 else 128
    wanted = wanted if dim >= 4 * wanted else 32 if dim >= 96 else 16
    return next(size for size in range(min(wanted, dim), 1, -1) if dim % size == 0 and size % 2 == 0)


def _mamba(dim: int, layers: int, contraction: float) -> StageConfig:
    """The paper's head width 64, or the widest below it that divides; a state of 128, or of 2 dim if that is less."""
    head_dim = next(size for size in range(64, 0, -1) if 2 * dim % size == 0)
    state_dim = min(128, 2 * dim)
    return StageConfig(
        dim=dim, layers=layers, mixer="mamba2", head_dim=head_dim, state_dim=state_dim, contraction=contraction
    )


def _contraction(kind: Family, stage: int, text: Text) -> float:
    if stage and kind.rules[stage - 1].startswith("fixed-"):
        return float(kind.rules[stage - 1].removeprefix("fixed-"))
    return text.contraction[stage]
