"""What `aunet info` tells of a model: parameters, FLOPs, contraction and memory by stage, without its weights."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from aunet.config import AUNetConfig
from aunet.model.aunet import AUNet
from aunet.model.flops import expected_lengths, paper_flops, parts, useful_flops_by_stage
from aunet.model.memory import training_memory


@dataclass(frozen=True)
class PartAccount:
    """embedding, lookup, contract, pool, upsample, expand, trunk or head."""

    name: str
    parameters: int
    flops_per_byte: float


@dataclass(frozen=True)
class StageAccount:
    """One stage; the transition to the next deeper one belongs to it, the embedding and the head to the byte stage."""

    stage: int
    """Counted from 1."""
    dim: int
    layers: int
    """Blocks on the way down; all blocks of the deepest stage."""
    layers_up: int | None
    """Blocks on the way up; none in the deepest stage."""
    mixer: str
    """attention or mamba2."""
    heads: int
    kv_heads: int
    head_dim: int
    ffn_dim: int
    window: int | None
    state_dim: int
    """Of Mamba-2, which has no key/value heads, feed-forward and window; 0 for attention."""
    contraction: float
    """Bytes per unit that the configuration expects."""
    measured_contraction: float | None
    """The same on a text, where one was given."""
    parameters: int
    flops_per_byte: float
    """Paper FLOPs."""
    useful_flops_per_byte: float
    activations_per_million_bytes: int
    parts: tuple[PartAccount, ...]


@dataclass(frozen=True)
class MemoryAccount:
    """Bytes of one replica that trains in fp32 with AdamW."""

    weights: int
    gradients: int
    optimizer: int
    activations_per_million_bytes: int


@dataclass(frozen=True)
class Accounting:
    """A model in numbers."""

    unit: str
    """byte, or token for a model over token ids: what stands in the place of a byte in all numbers."""
    seq_len: int
    """Length of the rows for which attention is counted."""
    parameters: int
    flops_per_byte: float
    """Paper FLOPs, forward and backward."""
    useful_flops_per_byte: float
    stages: tuple[StageAccount, ...]
    memory: MemoryAccount
    bytes_per_token: float | None = None
    """Of a model over tokens, on a text, where one was given."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `json.dumps`."""
        return asdict(self)

    def with_measured(self, contractions: Sequence[float]) -> "Accounting":
        """The same beside the bytes per unit of every stage that were measured on a text."""
        pairs = zip(self.stages, contractions, strict=True)
        return replace(self, stages=tuple(replace(stage, measured_contraction=value) for stage, value in pairs))


def describe(config: AUNetConfig, seq_len: int = 8192) -> Accounting:
    """Count a model that trains on rows of `seq_len` bytes."""
    model = AUNet.on_meta(config)
    flops = {(part.name, part.stage): value for part, value in paper_flops(model, seq_len).items()}
    found = [
        (part.stage, PartAccount(part.name, part.parameters, flops[part.name, part.stage])) for part in parts(model)
    ]
    useful = [value / seq_len for value in useful_flops_by_stage(config, expected_lengths(config, seq_len))]
    memory = training_memory(config)
    stages = []
    for s, stage in enumerate(config.stages):
        own = tuple(part for at, part in found if at == s)
        stages.append(
            StageAccount(
                stage=s + 1,
                dim=stage.dim,
                layers=stage.layers,
                layers_up=None if s == config.depth else config.layers(s)[1],
                mixer=stage.mixer,
                heads=stage.heads,
                kv_heads=stage.kv_heads,
                head_dim=stage.head_dim,
                ffn_dim=stage.ffn_dim,
                window=stage.window,
                state_dim=stage.state_dim,
                contraction=stage.contraction,
                measured_contraction=None,
                parameters=sum(part.parameters for part in own),
                flops_per_byte=sum(part.flops_per_byte for part in own),
                useful_flops_per_byte=useful[s],
                activations_per_million_bytes=memory.activations[s],
                parts=own,
            )
        )
    return Accounting(
        unit=config.unit,
        seq_len=seq_len,
        parameters=sum(part.parameters for _, part in found),
        flops_per_byte=sum(part.flops_per_byte for _, part in found),
        useful_flops_per_byte=sum(useful),
        stages=tuple(stages),
        memory=MemoryAccount(memory.weights, memory.gradients, memory.optimizer, sum(memory.activations)),
    )
