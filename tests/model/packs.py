"""Small models with no parameter at a special value, and random packs of documents, for the tests of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aunet.config import AUNetConfig
from aunet.model.aunet import AUNet
from aunet.model.lookup import BASE, key_of, salt, signed

RULES = ("", "word1", "word1+word2", "word1+word2+word4")


def small_config(stages: int, **more: Any) -> AUNetConfig:
    """A few hundred parameters per matrix; grouped key/value heads and a window at the byte stage."""
    shapes = [
        {"dim": 16, "layers": 1, "head_dim": 4, "window": 5, "kv_heads": 2},
        {"dim": 24, "layers": 1, "head_dim": 8, "window": 4},
        {"dim": 32, "layers": 1, "head_dim": 8},
        {"dim": 32, "layers": 1, "head_dim": 8, "kv_heads": 1},
    ]
    return AUNetConfig.model_validate({"stages": shapes[:stages], "splitter": RULES[stages - 1], "offsets": 4, **more})


def with_lookups(config: AUNetConfig) -> AUNetConfig:
    """The same with look-ups of few rows at every stage."""
    values = config.model_dump()
    for s, stage in enumerate(values["stages"]):
        stage["lookup"] = {"ngrams": (2, 3, 6) if s == 0 else (1, 3), "buckets": 50 + s}
    return AUNetConfig.model_validate(values)


KNOWN = [i for i in range(258) if i % 3 == 2]
"""Bytes of the n-grams that small models know: a third of all, a space, e, n and t among them."""


def with_known(config: AUNetConfig) -> AUNetConfig:
    """The same with look-ups that know their n-grams: one and two of these bytes, in one unit or in two."""
    values = config.model_dump()
    for stage in values["stages"]:
        stage["lookup"] = {"ngrams": (1, 2), "buckets": 7500, "known": True}
    return AUNetConfig.model_validate(values)


def known_keys(stage: int) -> Tensor:
    """What a look-up of a small model knows at this stage (0-based)."""
    one = torch.tensor(KNOWN) + 1
    two = (one[:, None] * signed(BASE) + one).flatten()
    units = [one, two] if stage else [one]  # a unit of the byte stage has one byte
    return torch.cat([key_of(torch.cat(units), salt(stage, 1)), key_of(two, salt(stage, 2))])


def with_qk_norm(config: AUNetConfig) -> AUNetConfig:
    """The same with normalised queries and keys at every stage."""
    values = config.model_dump()
    for stage in values["stages"]:
        stage["qk_norm"] = True
    return AUNetConfig.model_validate(values)


def with_layers_up(config: AUNetConfig) -> AUNetConfig:
    """The same with another number of blocks on the way up than on the way down: 2, none, 2 ..., from the bytes on."""
    values = config.model_dump()
    for s, stage in enumerate(values["stages"][:-1]):
        stage["layers_up"] = (2, 0, 2)[s]
    return AUNetConfig.model_validate(values)


def small_model(config: AUNetConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> AUNet:
    """Initialised, then moved off it everywhere: maps that start at 0 and gains of 1 would hide mistakes."""
    model = AUNet(config)
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    for s, lookup in enumerate(model.lookups):
        if lookup and lookup.config.known:
            lookup.know(known_keys(s))
    return model.to(dtype)


@dataclass(frozen=True)
class Pack:
    """Documents end to end, as `AUNet.forward` takes them."""

    ids: Tensor
    targets: Tensor
    levels: Tensor
    starts: Tensor
    counts: list[int]

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        return self.ids, self.levels, self.starts, self.counts

    def document(self, n: int) -> "Pack":
        """One of the documents alone."""
        part = slice(int(self.starts[n]), int(self.starts[n + 1]))
        return pack([self.ids[part]], [self.levels[part]], [self.targets[part]], len(self.counts) - 1)


def pack(ids: Sequence[Tensor], levels: Sequence[Tensor], targets: Sequence[Tensor], depth: int) -> Pack:
    lengths = torch.tensor([0, *(len(x) for x in ids)])
    packed = torch.cat(list(levels))
    counts = [int((packed >= s).sum()) for s in range(depth + 1)]
    return Pack(torch.cat(list(ids)), torch.cat(list(targets)), packed, lengths.cumsum(0), counts)


def random_pack(depth: int, lengths: Sequence[int], seed: int = 0, deepen: float = 0.4) -> Pack:
    """Random bytes; a position reaches each next level with probability `deepen`, a first position reaches all."""
    generator = torch.Generator().manual_seed(seed)
    ids, levels, targets = [], [], []
    for length in lengths:
        reached = torch.rand((depth, length), generator=generator) < deepen
        level = reached.cumprod(0).sum(0).to(torch.uint8)
        level[0] = depth
        levels.append(level)
        ids.append(torch.randint(0, 258, (length,), generator=generator))
        targets.append(torch.randint(0, 258, (length,), generator=generator))
    return pack(ids, levels, targets, depth)
