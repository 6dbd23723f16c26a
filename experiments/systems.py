"""The systems of the race: those of the paper, the same with look-ups, and what is changed in either.

A system is a family of `aunet scale plan` and what differs from it: look-ups, a reshaped model, settings of training.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aunet.config import AUNetConfig, LookupConfig, StageConfig
from aunet.model.flops import useful_flops_per_byte
from aunet.scaling.families import FAMILIES, Family, build
from aunet.scaling.text import Text

VOCABULARIES = {"1k": 1024, "4k": 4096, "16k": 16384}
"""Tokens of a BPE, by what its systems are called."""
BYTE_BUCKETS, UNIT_BUCKETS, TOKEN_BUCKETS = 32_768, 65_536, 65_536
"""Rows of each length of n-grams."""

Reshape = Callable[[AUNetConfig, Family, Text], AUNetConfig]
"""From the planned shape to another."""


@dataclass(frozen=True)
class Tables:
    """What look-ups hash, where a system has them."""

    of_bytes: tuple[int, ...] = (2, 3, 4, 6)
    of_units: tuple[int, ...] = (1,)
    of_tokens: tuple[int, ...] = (2, 3)
    rows: int = 1
    """Times the rows of each."""
    known: bool = False
    """All rows that the first lengths above have together are shared by the most frequent n-grams of any length."""


@dataclass(frozen=True)
class System:
    """A contestant."""

    name: str
    family: str
    vocabulary: int = 0
    """Tokens, for a family over tokens."""
    lookups: tuple[str, ...] = ()
    """Hashed n-grams, which go beyond the paper's recipe: of `bytes` (or tokens), of `units`."""
    tables: Tables = Tables()
    upsampling: str = "multilinear"
    reshape: Reshape | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the section `train` that differ from those of all others."""
    tuned_as: str = ""
    """The system whose settings it takes; its own if empty."""


def _systems() -> dict[str, System]:
    found = [System(name, name) for name, family in FAMILIES.items() if not family.tokens]
    found += [System(f"bpe-{name}", "bpe", size) for name, size in VOCABULARIES.items()]
    found += [replace(one, name=f"{one.name}-hash", lookups=("bytes", "units")) for one in found]
    changed = [
        replace(base, name=f"{base.name}-{name}", tuned_as=base.name, **change)
        for base in found
        for name, change in ABLATIONS.get(base.name, {}).items()
    ]
    return {system.name: system for system in (*found, *changed)}


def with_stages(model: AUNetConfig, change: Callable[[int, StageConfig], dict[str, Any]]) -> AUNetConfig:
    """The same model with other settings of its stages, by their place (0-based) and what they are."""
    stages = tuple(stage.model_copy(update=change(s, stage)) for s, stage in enumerate(model.stages))
    return model.model_copy(update={"stages": stages})


def with_qk_norm(model: AUNetConfig, kind: Family, text: Text) -> AUNetConfig:
    """Queries and keys normalised at every stage."""
    return with_stages(model, lambda s, stage: {"qk_norm": True})


def with_tied_head(model: AUNetConfig, kind: Family, text: Text) -> AUNetConfig:
    """The head shares the weights of the embedding."""
    return model.model_copy(update={"tied": True})


def with_layers_up(model: AUNetConfig, kind: Family, text: Text) -> AUNetConfig:
    """All blocks of the byte stage on its way up: as many, and as many FLOPs."""
    return with_stages(model, lambda s, stage: {} if s else {"layers": 0, "layers_up": 2 * stage.layers})


def with_layers_down(model: AUNetConfig, kind: Family, text: Text) -> AUNetConfig:
    """Three quarters of the blocks of the byte stage on its way down, all of two: as many, and as many FLOPs."""
    up = model.stages[0].layers // 2
    return with_stages(model, lambda s, stage: {} if s else {"layers": 2 * stage.layers - up, "layers_up": up})


def with_wide_bytes(model: AUNetConfig, kind: Family, text: Text) -> AUNetConfig:
    """A byte stage of half the next stage's width instead of a quarter; narrower altogether, so that FLOPs are equal.

    Deeper stages keep their proportions; FLOPs per byte are as near as widths and one layer of the trunk more or less
    allow.
    """
    dims, (*shallow, trunk) = [stage.dim for stage in model.stages], [stage.layers for stage in model.stages]
    found = []
    for width in range(32, max(32, dims[1]) + 1, 16):
        deeper = [round(dim * width / dims[1] / 16) * 16 for dim in dims[1:]]
        for count in range(max(1, trunk - 1), trunk + 2):
            found.append(build(kind, [width // 2, *deeper], [*shallow, count], text))
    return _nearest(found, model, text)


def with_deepest(share: float) -> Reshape:
    """Eight blocks of which this share are the trunk's and the rest, down and up alike, the byte stage's."""

    def reshaped(model: AUNetConfig, kind: Family, text: Text) -> AUNetConfig:
        trunk = round(8 * share)
        layers, widths = [(8 - trunk) // 2, trunk], range(32, 2 * model.stages[1].dim + 1, 8)
        return _nearest([build(kind, [width // 4, width], layers, text) for width in widths], model, text)

    return reshaped


def _nearest(found: Sequence[AUNetConfig], model: AUNetConfig, text: Text) -> AUNetConfig:
    """That whose FLOPs per byte are most like those of the model."""
    wanted = useful_flops_per_byte(model, text.row_ids)
    return min(found, key=lambda one: abs(math.log(useful_flops_per_byte(one, text.row_ids) / wanted)))


def with_wide_window(model: AUNetConfig, kind: Family, text: Text) -> AUNetConfig:
    """Twice the window at the byte stage; the budget pays for it with bytes."""
    return with_stages(model, lambda s, stage: {} if s or stage.window is None else {"window": 2 * stage.window})


def with_lookups(model: AUNetConfig, where: tuple[str, ...], tables: Tables) -> AUNetConfig:
    """The same model with tables of hashed n-grams at the first stage (`bytes`) and at the deeper ones (`units`)."""
    kind, first_buckets = ("of_tokens", TOKEN_BUCKETS) if model.tokenizer else ("of_bytes", BYTE_BUCKETS)

    def lookup(s: int, _: StageConfig) -> dict[str, Any]:
        name, buckets = ("of_units", UNIT_BUCKETS) if s else (kind, first_buckets)
        ngrams: tuple[int, ...] = getattr(tables, name)
        if ("units" if s else "bytes") not in where:
            return {"lookup": None}
        if tables.known:
            buckets = buckets * len(getattr(Tables(), name)) // len(ngrams)
        return {"lookup": LookupConfig(ngrams=ngrams, buckets=tables.rows * buckets, known=tables.known)}

    return with_stages(model, lookup)


KNOWN = Tables(of_bytes=(2, 3, 4, 5, 6, 7, 8), of_units=(1, 2), of_tokens=(2, 3, 4), known=True)
DEEPEST = (25, 50, 75)
"""Percent of the layers in the deepest stage, of which the paper found 75 to be best."""
CALM: Mapping[str, Any] = {"head_eps": 1e-3}
"""Lowers what a byte costs that training never showed (docs/results.md)."""
LONGER = Tables(of_bytes=(2, 3, 4, 6, 8), of_units=(1, 2), of_tokens=(2, 3, 4))
Changes = Mapping[str, Mapping[str, Any]]
"""What differs from a system, by what is added to its name."""
UPSAMPLING: Changes = {how: {"upsampling": how} for how in ("repeat", "simple")}
WIDE: Changes = {"wide-bytes": {"reshape": with_wide_bytes}}
TIED: Changes = {"tied": {"reshape": with_tied_head}}
ANYWHERE: Changes = {
    "muon": {"train": {"optimizer": "muon"}},
    "qk-norm": {"reshape": with_qk_norm},
    "fixed-init": {"train": {"init": "fixed"}},
    "grams": {"tables": LONGER},
    "rows": {"tables": Tables(rows=4)},
    "known": {"tables": KNOWN},
    "calm": {"tables": KNOWN, "train": CALM},
}
"""Of a system with look-ups; `calm` differs from `known`."""
TOKENS: Changes = {
    **TIED,
    "best": {"tables": Tables(rows=4), "train": {"optimizer": "muon"}},
    "best-known": {"tables": replace(KNOWN, rows=4), "train": {"optimizer": "muon"}},
}
"""Of one over tokens; `best`: all that helped it at 1e13 FLOPs before n-grams were known (docs/results.md)."""
BYTE_STAGE: Changes = {
    "units-only": {"lookups": ("units",)},
    "up-only": {"reshape": with_layers_up},
    "down-heavy": {"reshape": with_layers_down},
    **WIDE,
    "window": {"reshape": with_wide_window},
    "slow-bytes": {"train": {"stage_lr": (0.5, 1.0)}},
    "fast-bytes": {"train": {"stage_lr": (2.0, 1.0)}},
    "best": {"tables": replace(LONGER, rows=4), "train": {"optimizer": "muon"}, "reshape": with_wide_bytes},
    "best-known": {"tables": replace(KNOWN, rows=4), "train": {"optimizer": "muon"}, "reshape": with_wide_bytes},
}
"""And of one with a byte stage above another."""
ABLATIONS: Mapping[str, Changes] = {
    "aunet-2": {
        **UPSAMPLING,
        **{f"deepest-{percent}": {"reshape": with_deepest(percent / 100)} for percent in DEEPEST},
        "calm": {"train": CALM},
        **WIDE,
    },
    "aunet-3": {**UPSAMPLING, **WIDE},
    "bpe-1k": TIED,
    "bpe-4k": {**TIED, "calm": {"train": CALM}},
    "bpe-16k": TIED,
    "aunet-2-hash": {**ANYWHERE, **BYTE_STAGE},
    "bpe-1k-hash": {**ANYWHERE, **TOKENS},
}
"""By the system that they change."""
SYSTEMS = _systems()
