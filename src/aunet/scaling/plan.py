"""Plan a run for a budget: shape, length, batch and learning rate (paper, section 3 and Table 9).

A budget of C FLOPs at a data-to-model ratio gamma is split as the paper does: N bytes are read by a model of F FLOPs
per byte, C = F N and N = gamma k^2 F, with gamma in Llama 3 tokens of k bytes. F counts useful FLOPs, the head
included, so that systems of one budget differ in nothing that can be counted. At the paper's own budgets the shapes are
those of its tables, whose FLOPs it counted in its own way.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from aunet.config import AUNetConfig
from aunet.errors import AUNetError, ConfigError
from aunet.files import replacing
from aunet.model.flops import LLAMA_BYTES_PER_TOKEN_SQUARED, useful_flops_per_byte
from aunet.paper_laws import LAW_RANGE, LAWS
from aunet.scaling.families import Family, family, paper_shape, shape
from aunet.scaling.fit import fit_records
from aunet.scaling.records import Record
from aunet.scaling.text import Text

PAPER_GAMMA = 10.0
"""Of all scaling rows of the paper, whose shapes are taken from its table."""
Law = Callable[[float], float]
"""From compute in FLOPs to a batch in ids or to a learning rate."""
PAPER_LAWS: Mapping[bool, Mapping[str, Law]] = {
    tokens: {"batch": laws.batch, "lr": laws.lr} for tokens, laws in ((False, LAWS["byte"]), (True, LAWS["token"]))
}
"""The paper's laws of systems over bytes (False) and over tokens (True)."""


@dataclass(frozen=True)
class ScalePlan:
    """A planned run."""

    family: str
    compute: float
    """FLOPs of the budget."""
    model: AUNetConfig
    seq_len: int
    """Ids of a row."""
    flops_per_byte: float
    """Useful FLOPs per byte of the shape that was found."""
    bytes: float
    """Bytes read, so that the useful FLOPs are those of the budget."""
    gamma: float
    """The data-to-model ratio that follows, in Llama 3 tokens."""
    bytes_per_token: float
    """Bytes that an id stands for; 1 over bytes."""
    batch: int
    """Ids per step, whole rows."""
    lr: float
    notes: tuple[str, ...]
    """What a reader should know: whose shape, whose laws."""

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return max(1, round(self.bytes / self.bytes_per_token / self.batch))

    def settings(self) -> dict[str, Any]:
        """The sections `model`, `data` and `train` of a run configuration, which lacks nothing but its data."""
        return {
            "model": self.model.model_dump(mode="json"),
            "data": {"seq_len": self.seq_len},
            "train": {
                # Not the steps: a search over batches must read as much with each.
                "bytes": self.bytes / self.bytes_per_token,
                "batch_bytes": self.batch,
                "lr": float(f"{self.lr:.4g}"),
            },
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `json.dumps`."""
        stages = self.model.stages
        return {
            "family": self.family,
            "compute": self.compute,
            "dims": [stage.dim for stage in stages],
            "layers": [stage.layers for stage in stages],
            "steps": self.steps,
            "batch": self.batch,
            "lr": self.lr,
            "seq_len": self.seq_len,
            "useful_flops_per_byte": self.flops_per_byte,
            "bytes": self.bytes,
            "gamma": self.gamma,
            "notes": list(self.notes),
            "run": self.settings(),
        }


def make_scale_plan(
    name: str,
    compute: float,
    gamma: float = PAPER_GAMMA,
    text: Text | None = None,
    laws: Mapping[str, Law] | None = None,
) -> ScalePlan:
    """Plan a run of the family `name`.

    `text`: length of rows, bytes per unit, tokenizer; English novels and rows that grow with the budget if not given.
    `laws`: `batch` and `lr` by compute, the paper's if not given. ConfigError where the budget is too small, or a
    tokenizer is missing or not for this family.
    """
    _check_positive("compute", compute)
    _check_positive("gamma", gamma)
    kind = family(name)
    text = text or Text(row_length(compute))
    if kind.tokens and not text.tokenizer:
        raise ConfigError(f"--tokenizer: {name} needs one; aunet tokenizer train makes it")
    if text.tokenizer and not kind.tokens:
        raise ConfigError(f"--tokenizer: {name} reads bytes; leave it out, or take the family bpe")
    table = paper_shape(kind, compute, text) if gamma == PAPER_GAMMA else None
    wanted = math.sqrt(compute / (gamma * LLAMA_BYTES_PER_TOKEN_SQUARED))
    model = table or shape(kind, wanted, text)
    flops = useful_flops_per_byte(model, text.row_ids) / text.bytes_per_token
    total = gamma * LLAMA_BYTES_PER_TOKEN_SQUARED * wanted if table else compute / flops
    rows = max(1, round((laws or PAPER_LAWS[kind.tokens])["batch"](compute) / text.row_ids))
    return ScalePlan(
        family=name,
        compute=compute,
        model=model,
        seq_len=text.row_ids,
        flops_per_byte=flops,
        bytes=total,
        gamma=total / flops / LLAMA_BYTES_PER_TOKEN_SQUARED,
        bytes_per_token=text.bytes_per_token,
        batch=rows * text.row_ids,
        lr=(laws or PAPER_LAWS[kind.tokens])["lr"](compute),
        notes=_notes(kind, compute, total * flops if table else None, laws is not None),
    )


def fitted_laws(records: Sequence[Record], name: str) -> Mapping[str, Law]:
    """The laws of batch and learning rate that the records of a family give; AUNetError where they give none."""
    if name not in {record.family for record in records}:
        raise AUNetError(f"--records: there is no record of {name} among them")
    found = fit_records(records).of(name)
    if found.batch is None or found.lr is None:
        raise AUNetError(f"--records: {'; '.join(found.notes) or f'too few budgets of {name} for laws'}")
    return {"batch": found.batch.at, "lr": found.lr.at}


def write_run(plan: ScalePlan, path: Path) -> None:
    """Write what `aunet train` needs but for the data, as YAML; AUNetError if it cannot be written or is there.

    Each plan has a directory of its own for its run.
    """
    if path.exists():
        raise AUNetError(f"--out: {path} is there, and may have been worked on; remove it or name another file")
    budget, settings = f"{plan.compute:.3g}", plan.settings()
    header = f"# {plan.family} of {budget} FLOPs, planned by aunet scale plan; add data.sources\n"
    settings["train"]["out"] = f"runs/{plan.family}-{budget.replace('+', '')}"
    try:
        with replacing(path) as partial:
            partial.write_text(header + yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise AUNetError(f"--out: {path} cannot be written ({error.strerror})") from None


def table(plan: ScalePlan) -> Table:
    """One row per stage."""
    view = Table(box=None, pad_edge=False)
    for column in ("stage", "width", "layers", "head width", "window", "bytes/unit"):
        view.add_column(column, justify="left" if column == "stage" else "right")
    for s, stage in enumerate(plan.model.stages):
        layers = " + ".join(map(str, plan.model.layers(s)))
        size = stage.contraction * plan.bytes_per_token
        view.add_row(str(s + 1), str(stage.dim), layers, str(stage.head_dim), str(stage.window or "all"), f"{size:.3g}")
    return view


def lines(plan: ScalePlan) -> list[str]:
    """The run in words."""
    unit = plan.model.unit
    return [
        f"{plan.bytes:.3g} bytes in {plan.steps:,} steps of {plan.batch:,} {unit}s, rows of {plan.seq_len}; highest "
        f"learning rate {plan.lr:.3g}",
        f"{plan.flops_per_byte:.3g} useful FLOPs per byte; gamma {plan.gamma:.3g} in Llama 3 tokens",
        *plan.notes,
    ]


def row_length(compute: float) -> int:
    """Bytes of a row: the paper's 8192 at its budgets, and a power of two that grows as the fourth root below them.

    ConfigError where `compute` is no finite number above 0.

    >>> [row_length(compute) for compute in (1e13, 1e14, 3e15, 1e18, 1e22)]
    [512, 1024, 2048, 8192, 8192]
    """
    _check_positive("compute", compute)
    exponent: int = round(math.log2(512 * (compute / 1e13) ** 0.25))
    return int(1 << min(13, max(8, exponent)))


def _check_positive(flag: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"--{flag}: {value:g} is not a finite number above 0; write for instance 1e14 or 10")


def _notes(kind: Family, compute: float, spent: float | None, fitted: bool) -> tuple[str, ...]:
    """`spent`: useful FLOPs of a row of the paper's table; None elsewhere."""
    low, high = LAW_RANGE
    notes = ["shape by the proportions of the paper's Table 9"]
    if spent:
        notes = [
            f"shape and length of the paper's table: {spent / compute:.2f} times the budget in useful FLOPs, which are "
            "matched between families everywhere else"
        ]
    if fitted:
        notes.append("batch and learning rate by the given laws")
    elif low <= float(f"{compute:.0e}") <= high:
        notes.append("batch and learning rate by the paper's laws")
    else:
        notes.append(
            f"batch and learning rate by the paper's laws, far outside the {low:.0e} to {high:.0e} FLOPs "
            "for which they hold: search around them with aunet scale sweep"
        )
    if kind.mixer != "attention" or kind.name.startswith(("fixed", "bytes")):
        notes.append("the paper gives no law of its own for this system; AU-Net's stand in")
    return tuple(notes)
