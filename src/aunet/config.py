"""Typed configurations: what a model is, what it reads, how it trains. `aunet.mappings` reads them."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from aunet.bytes import VOCAB_SIZE

PAPER_CONTRACTION = (1.0, 4.9, 7.3, 10.5)
"""Bytes per unit of stages 1 to 4 that reproduce the paper's FLOPs; the contraction of a text belongs to the text."""
FIXED = re.compile(r"fixed-([1-9]\d{0,8})", re.ASCII)
"""The rule of fixed windows and their width in bytes."""
WORDS = re.compile(r"word([1-9]\d{0,8})", re.ASCII)
"""The rule of words and their number."""


class Strict(BaseModel):
    """Immutable, and an unknown key is an error; so are infinities, for which no length or rate can be planned."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _check_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        """Python counts true as 1: `steps: true` would be one step."""
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        given = value if isinstance(value, list | tuple) else [value]
        if kinds & {int, float} and bool not in kinds and any(isinstance(one, bool) for one in given):
            raise ValueError("expected a number, not true or false")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """The types that stand somewhere in an annotation, such as int and None in `tuple[int, ...] | None`."""
    inner = get_args(annotation)
    return {kind for one in inner for kind in _kinds(one)} if inner else {annotation}


def ffn_width(dim: int) -> int:
    """Llama's rule: the multiple of 256 at or above 8/3 of the width; of 16 below a width of 256.

    >>> ffn_width(512), ffn_width(2048), ffn_width(64)
    (1536, 5632, 176)
    """
    multiple = 256 if dim >= 256 else 16
    return multiple * math.ceil(8 * dim / 3 / multiple)


class LookupConfig(Strict):
    """Vectors that are looked up by what the last units of a stage spell, and added to what enters the stage.

    They cost no FLOPs: a table per n of `ngrams`, with `buckets` rows of the stage's width, in which the hash of the
    last n units names the row. With `known` all these rows belong to the n-grams that are most frequent in the training
    text, of whatever length, one each, and what is rarer or was never read adds nothing.
    """

    ngrams: tuple[Annotated[int, Field(ge=1, le=1 << 16)], ...] = Field(
        min_length=1, description="lengths in units of the stage"
    )
    buckets: int = Field(gt=0, le=1 << 36, description="rows of each table")
    known: bool = Field(
        default=False, description="rows belong to the most frequent n-grams, and the rest adds nothing"
    )

    @model_validator(mode="after")
    def _check_distinct(self) -> Self:
        if len(set(self.ngrams)) < len(self.ngrams):
            raise ValueError(f"ngrams {list(self.ngrams)} names a length twice; each has one table")
        if self.known and len(self.ngrams) * self.buckets < 2:
            raise ValueError("known: one row is that of what is unknown; give more buckets")
        return self


class StageConfig(Strict):
    """One stage: a plain decoder-only Transformer over its units, or a stack of Mamba-2 blocks.

    A stage that is not the deepest has `layers` blocks on the way down and as many on the way up (paper, Table 9), or
    `layers_up`.
    """

    dim: int = Field(gt=0, le=1 << 18)
    layers: int = Field(ge=0, le=4096)
    layers_up: int | None = Field(default=None, ge=0, le=4096, description="blocks on the way up; not given: `layers`")
    mixer: Literal["attention", "mamba2"] = Field(default="attention", description="what mixes positions")
    head_dim: int = Field(gt=0)
    ffn_dim: int = Field(default=0, ge=0, le=1 << 20, description="hidden width of SwiGLU; 0: Llama's rule")
    window: int | None = Field(
        default=None, gt=0, le=1 << 40, description="a query sees at most this many keys, itself included"
    )
    kv_heads: int = Field(default=0, ge=0, description="key/value heads; 0: as many as query heads")
    qk_norm: bool = Field(default=False, description="RMSNorm of every query and key before it is turned")
    state_dim: int = Field(
        default=0, ge=0, le=1 << 16, description="numbers that a channel of Mamba-2 remembers; 0: 128"
    )
    contraction: float = Field(
        default=0.0,
        ge=0,
        description="bytes per unit; 0: the paper's for words, W for fixed-W, in a stack of both their product",
    )
    lookup: LookupConfig | None = Field(default=None, description="hashed n-grams of units, added at the entrance")

    @model_validator(mode="after")
    def _fill_and_check(self) -> Self:
        foreign = ("ffn_dim", "window", "kv_heads", "qk_norm") if self.mixer == "mamba2" else ("state_dim",)
        given = [name for name in foreign if getattr(self, name)]
        if given:
            raise ValueError(f"the mixer {self.mixer} has no {' and no '.join(given)}; leave that out")
        if self.inner_dim % self.head_dim:
            expanded = f"2 dim = {self.inner_dim}" if self.mixer == "mamba2" else f"dim {self.dim}"
            raise ValueError(f"head_dim {self.head_dim} does not divide {expanded}")
        if self.mixer == "mamba2":
            object.__setattr__(self, "state_dim", self.state_dim or 128)
            return self
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rotary embedding turns pairs")
        object.__setattr__(self, "ffn_dim", self.ffn_dim or ffn_width(self.dim))
        object.__setattr__(self, "kv_heads", self.kv_heads or self.heads)
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} does not divide the {self.heads} heads")
        return self

    @property
    def inner_dim(self) -> int:
        """Width of all heads together: Mamba-2 expands to twice the width of the stage."""
        return 2 * self.dim if self.mixer == "mamba2" else self.dim

    @property
    def heads(self) -> int:
        """Number of query heads, or of heads of Mamba-2."""
        return self.inner_dim // self.head_dim


class AUNetConfig(Strict):
    """The architecture. Stages run from bytes to the deepest; one stage is a plain byte Transformer."""

    vocab_size: int = Field(default=VOCAB_SIZE, gt=1, le=1 << 24)
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    splitter: str = Field(default="", description="splitting rule with one level less than stages; '' for one stage")
    tokenizer: str = Field(default="", description="a tokenizer.json, for one stage over its tokens; '' reads bytes")
    tied: bool = Field(default=False, description="the head shares the weights of the embedding")
    pooling: Literal["select"] = "select"
    upsampling: Literal["multilinear", "repeat", "simple"] = "multilinear"
    offsets: int = Field(default=16, gt=0, le=1 << 12, description="position maps P; an offset counts modulo P")
    rope_theta: float = Field(default=5e5, gt=0)
    norm_eps: float = Field(default=1e-5, gt=0)

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        rules = self.splitter.split("+") if self.splitter else []
        if self.tokenizer and (rules or len(self.stages) > 1):
            raise ValueError("tokenizer: a model over tokens has one stage and no splitter")
        if len(rules) != len(self.stages) - 1:
            raise ValueError(
                f"{len(self.stages)} stages need a splitter with {len(self.stages) - 1} levels; "
                f"{self.splitter!r} has {len(rules)}"
            )
        if self.stages[-1].layers_up is not None:
            deepest = len(self.stages) - 1
            raise ValueError(f"stages.{deepest}.layers_up: the deepest stage has no way up; leave it out, set layers")
        malformed = [rule for rule in rules if rule.startswith("fixed-") and not FIXED.fullmatch(rule)]
        if malformed:
            raise ValueError(f"splitter: {malformed[0][:40]!r} is no rule; fixed windows are fixed-W, W from 1")
        stages: list[StageConfig] = []
        for s, stage in enumerate(self.stages):
            above = stages[-1].contraction if stages else 0.0
            filled = stage.contraction or max(_contraction(rules[:s]), above)
            stages.append(stage.model_copy(update={"contraction": filled}))
        object.__setattr__(self, "stages", tuple(stages))
        if stages[0].contraction != 1:
            raise ValueError(f"stages.0.contraction: a unit of the first stage is one {self.unit}; leave it out")
        for s in range(1, len(stages)):
            if stages[s].contraction < stages[s - 1].contraction:
                raise ValueError(f"stages.{s}.contraction is below the one of stages.{s - 1}; deeper units are longer")
        return self

    def layers(self, stage: int) -> tuple[int, ...]:
        """Blocks of a stage (0-based): on the way down and on the way up, in the deepest stage one number."""
        own = self.stages[stage]
        if stage == self.depth:
            return (own.layers,)
        return own.layers, own.layers if own.layers_up is None else own.layers_up

    @property
    def depth(self) -> int:
        """Number of levels that a splitter must give: stages - 1."""
        return len(self.stages) - 1

    @property
    def unit(self) -> Literal["byte", "token"]:
        """What an id of text stands for; all counts and rates are in these."""
        return "token" if self.tokenizer or self.vocab_size != VOCAB_SIZE else "byte"


def _contraction(rules: Sequence[str]) -> float:
    """Bytes per unit below so many rules when the configuration is silent: a unit ends where all of them pool.

    Those of 1, 2 and 4 words are the paper's; other numbers have that of the nearest one below.

    >>> _contraction(["word1"]), _contraction(["word1", "word4"]), _contraction(["fixed-4", "fixed-6"])
    (4.9, 10.5, 12.0)
    """
    widths = math.lcm(*(int(match[1]) for match in map(FIXED.fullmatch, rules) if match))
    others = [rule for rule in rules if not FIXED.fullmatch(rule)]
    words = math.lcm(*(int(match[1]) for match in map(WORDS.fullmatch, others) if match))
    known = min(words.bit_length(), len(PAPER_CONTRACTION) - 1) if others else 0
    # Where words end has nothing to do with the multiples of a width.
    return PAPER_CONTRACTION[known] * widths


class SourceConfig(Strict):
    """A file, a glob, a directory, or `hf:NAME[:CONFIG][@SPLIT]` for a Hugging Face dataset."""

    path: str
    weight: float | None = Field(default=None, gt=0, le=1e9, description="share of rows; of all sources or of none")
    text_field: str = "text"


class DataConfig(Strict):
    """What is read, how it is mixed and cut into rows."""

    sources: tuple[SourceConfig, ...] = ()
    valid: tuple[SourceConfig, ...] = Field(
        default=(), description="held-out documents, read in order, never trained on"
    )
    valid_bytes: int = Field(default=1_000_000, gt=0, description="how much of it one validation scores")
    temperature: float | None = Field(
        default=None,
        gt=0,
        description="share of a source: its size to the power 1/temperature; not with weights",
    )
    seq_len: int = Field(default=8192, ge=2, le=1 << 26, description="bytes in a row at most")
    lanes: int = Field(default=8, gt=0, description="logical parts of every source, independent of workers and ranks")
    shuffle_documents: int = Field(default=1024, gt=0, description="documents shuffled together in a lane")
    shuffle_bytes: int = Field(default=16_777_216, gt=0, description="and their bytes at most")
    workers: int = Field(default=1, ge=0, description="loader processes; 0 reads in the training process")
    prefetch: int = Field(default=8, gt=0, description="rows that a worker reads ahead")
    seed: int = Field(default=0, ge=0, lt=1 << 63)

    @model_validator(mode="after")
    def _check_mixing(self) -> Self:
        weighted = [source.weight is not None for source in self.sources]
        if any(weighted) and not all(weighted):
            raise ValueError("either all sources have a weight or none has")
        if any(weighted) and self.temperature is not None:
            raise ValueError("temperature and weights exclude each other")
        return self


Momentum = Annotated[float, Field(ge=0, lt=1)]
Init = Literal["fan_in", "fixed"]
LENGTHS = ("steps", "bytes", "compute", "gamma")


class TrainConfig(Strict):
    """How long and how: exactly one of `steps`, `bytes`, `compute`, `gamma` sets the length."""

    out: str = Field(default="runs/aunet", description="directory of the model, its checkpoints and metrics")
    init_from: str | None = Field(default=None, description="a model directory whose weights a new run starts from")
    steps: int | None = Field(default=None, gt=0, le=10**12)
    bytes: float | None = Field(default=None, gt=0, le=1e18)
    compute: float | None = Field(default=None, gt=0, le=1e30, description="paper FLOPs in total")
    gamma: float | None = Field(default=None, gt=0, le=1e9, description="data-to-model ratio in Llama 3 tokens")
    batch_bytes: float | None = Field(
        default=None, gt=0, le=1e12, description="bytes per step; the paper's law in its range"
    )
    accumulate: int = Field(default=1, gt=0, description="micro-batches per step")
    copies: int = Field(default=1, gt=0, description="complete copies of the weights that the processes of a run hold")
    lr: float | None = Field(default=None, gt=0, description="highest learning rate; the paper's law in its range")
    lr_floor: float = Field(default=0.01, ge=0, le=1, description="last learning rate as a share of the highest")
    warmup: float = Field(default=0.1, ge=0, description="below 1 a share of the steps, from 1 on a number of steps")
    init: Init = Field(default="fan_in", description="scale of the matrices that a new run starts from")
    optimizer: Literal["adamw", "muon"] = Field(default="adamw", description="of the matrices inside the model")
    betas: tuple[Momentum, Momentum] = (0.9, 0.95)
    weight_decay: float = Field(default=0.1, ge=0, description="on matrices only")
    head_eps: float = Field(default=1e-8, gt=0, description="epsilon of AdamW for the head; 1e-8 is that of all others")
    lookup_lr: float = Field(default=3.0, gt=0, description="learning rate of look-ups, relative to `lr`")
    lookup_sample: float = Field(
        default=1e7,
        gt=0,
        description="bytes of the training text whose n-grams are counted, for look-ups that are known",
    )
    stage_lr: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(), description="learning rate of every stage, bytes first, relative to `lr`; empty: 1 for all"
    )
    clip: float = Field(default=0.2, gt=0, description="largest gradient norm")
    spike: float = Field(
        default=0.0, ge=0, description="skip updates of so many times the usual loss or gradient norm; 0: none"
    )
    max_skips: int = Field(default=10, ge=0, description="updates skipped among 128 beyond which a run ends")
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    recompute: tuple[bool, ...] = Field(
        default=(), description="stages, bytes first, whose blocks are computed again for gradients; empty: none"
    )
    device: str = "auto"
    threads: int = Field(default=0, ge=0, le=1024, description="CPU threads; 0: torch's choice")
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    log_every: int = Field(default=1, gt=0)
    valid_every: int = Field(default=0, ge=0, description="steps between validations; 0: only at the end")
    checkpoint_every: int = Field(default=500, gt=0, description="steps between checkpoints")
    checkpoints: str | None = Field(
        default=None, description="a directory, or a URL such as s3://bucket/run; not given: OUT/checkpoints"
    )
    keep: int = Field(default=2, gt=0, description="newest checkpoints kept")
    keep_best: int = Field(default=0, ge=0, description="and those with the lowest bits per byte on held-out text")
    keep_every: int = Field(default=0, ge=0, description="and those of every so many steps; 0: none")
    stall_timeout: float = Field(default=600.0, gt=0, description="seconds after which a hanging process is named")
    profile: bool = Field(default=False, description="write a trace of a few steps of every rank")
    tensorboard: bool = False
    wandb: bool = False

    @field_validator("spike")
    @classmethod
    def _check_spike(cls, spike: float) -> float:
        if 0 < spike <= 1:
            raise ValueError("give a number above 1, or 0 to skip only what is not finite")
        return spike

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        given = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(LENGTHS)}, not {' and '.join(given)}")
        return self

    @model_validator(mode="after")
    def _check_keep_best(self) -> Self:
        if self.keep_best and not self.valid_every:
            raise ValueError("keep_best: only steps that are validated have a score; set valid_every")
        return self

    @property
    def checkpoints_at(self) -> str:
        """Where checkpoints are written and looked for."""
        return self.checkpoints or str(Path(self.out) / "checkpoints")


class RunConfig(Strict):
    """A whole run. `aunet train` reads this."""

    model: AUNetConfig
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _check_compile(self) -> Self:
        if self.train.compile and all(stage.mixer == "mamba2" for stage in self.model.stages):
            raise ValueError("train.compile: blocks of the mixer mamba2 are not compiled; leave it out")
        return self

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        stages = len(self.model.stages)
        for key in ("stage_lr", "recompute"):
            given = len(getattr(self.train, key))
            if given not in (0, stages):
                raise ValueError(f"train.{key}: {given} for {stages} stages; give one for each, bytes first, or none")
        return self
