"""One JSON file for every run: what was trained, what it cost, what it reached.

A record is meant to be published, so it holds no path: of a file that was read only the name stays, with the hash of
what stood in it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from aunet.config import RunConfig, Strict
from aunet.data.sources import HUB
from aunet.errors import AUNetError
from aunet.files import make_directory, replacing

VERSION = 1
NOT_THE_SETTING = {
    "data": ("valid", "valid_bytes", "workers", "prefetch"),
    "train": (
        *("out", "device", "threads", "log_every", "valid_every", "checkpoint_every", "tensorboard", "wandb"),
        *("checkpoints", "keep", "keep_best", "keep_every", "profile", "stall_timeout"),
    ),
}
"""Keys that change where and how a run goes on, and not what it finds."""

SECTIONS = ("model", "data", "train")
"""Of a configuration."""
SHOWN = 60
"""Characters of a value in a message."""
DocumentScore = tuple[float, int]
"""Bits, the end included, and bytes of one document."""


class Code(Strict):
    """What was run."""

    version: str
    commit: str | None = Field(description="of git, where the package lies in a repository")
    sources: str = Field(
        description="SHA-256 of the package's Python and C++ files: tells a changed copy from its commit"
    )


class Record(Strict):
    """A run. All sizes and rates are of the whole run, over all its resumptions."""

    version: Literal[1]
    name: str
    family: str = Field(min_length=1, description="what is compared; its runs differ in size, budget and tuning")
    status: Literal["complete", "failed", "pruned"]
    reason: str = Field(default="", description="why a run is not complete")
    seed: int
    compute_flops: float = Field(ge=0, description="useful FLOPs, head included, of the documents that were read")
    paper_flops: float = Field(ge=0)
    planned_flops: float = Field(ge=0, description="useful FLOPs expected of the whole run")
    bits_per_byte: dict[str, float] = Field(description="by validation set, whole documents; the first was tuned for")
    documents: dict[str, tuple[DocumentScore, ...]] = Field(description="the same, document by document")
    parameters: int
    bytes_read: int = Field(ge=0)
    epochs: float | None = Field(description="bytes read over bytes of the training text; null if unknown")
    bytes_per_second: float = Field(ge=0, description="while training, validation left out")
    seconds: float = Field(ge=0)
    steps: int = Field(ge=0)
    lr: float = Field(gt=0)
    batch: int = Field(gt=0, description="units per step at most: whole rows")
    batch_bytes: float = Field(ge=0, description="bytes per step, measured")
    gamma: float = Field(description="data-to-model ratio by paper FLOPs, in Llama 3 tokens or the model's own")
    config: dict[str, Any]
    data_hash: dict[str, str] = Field(description="of the text (`train`), the tokenizer if any, the validation sets")
    code: Code
    hardware: str
    date: str
    curve: tuple[tuple[int, int, float], ...] = Field(description="steps, bytes read, bits per byte of training rows")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.status == "complete") == bool(self.reason):
            raise ValueError("a run that is not complete has a reason, a complete one has none")
        if self.status == "complete" and not self.bits_per_byte:
            raise ValueError("a complete run has bits per byte of at least one validation set")
        if self.status == "complete" and not (self.compute_flops and self.paper_flops and self.bytes_read):
            raise ValueError("a complete run has bytes_read, paper_flops and compute_flops above 0")
        if not all(isinstance(self.config.get(section), dict) for section in SECTIONS):
            raise ValueError(f"config has the sections {', '.join(SECTIONS)}")
        if list(self.documents) != list(self.bits_per_byte):
            raise ValueError("bits_per_byte and documents name different validation sets")
        for name, documents in self.documents.items():
            ratio = sum(bits for bits, _ in documents) / max(sum(size for _, size in documents), 1)
            if abs(ratio - self.bits_per_byte[name]) > 1e-6 * max(ratio, 1.0):
                raise ValueError(f"bits_per_byte.{name} is not the ratio of its documents, {ratio:.6f}")
        return self

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return self.status == "complete"


@dataclass(frozen=True)
class Records:
    """What a directory holds."""

    records: tuple[Record, ...]
    skipped: tuple[str, ...]
    """A line for each file that is a record of another version, or none at all."""


def portable(config: RunConfig) -> dict[str, Any]:
    """The configuration as JSON values in which every path is a name, since paths belong to a machine."""
    values: dict[str, Any] = json.loads(config.model_dump_json())
    for source in (*values["data"]["sources"], *values["data"]["valid"]):
        source["path"] = name_of(source["path"])
    for section, key in (("model", "tokenizer"), ("train", "out"), ("train", "init_from"), ("train", "checkpoints")):
        values[section][key] = values[section][key] and name_of(values[section][key])
    return values


def setting(config: Mapping[str, Any], seeds: bool = True) -> dict[str, Any]:
    """What of a portable configuration decides the result; runs that share it `seeds=False` are repetitions.

    Settings that the version which wrote it did not have yet have their defaults.
    """
    found = filled(config)
    for section, keys in NOT_THE_SETTING.items():
        for key in (*keys, *(() if seeds else ("seed",))):
            found[section].pop(key, None)
    return found


def filled(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The configuration with every setting of this version; as it is where this version cannot read it."""
    try:
        return RunConfig.model_validate(config).model_dump(mode="json")
    except ValidationError:
        return {section: dict(values) for section, values in config.items()}


def name_of(path: str) -> str:
    """The last part of a path or glob; of a dataset of the hub all of it; of no path none.

    >>> name_of("some/where/train-*.jsonl.zst"), name_of("hf:user/set@train"), name_of("")
    ('train-*.jsonl.zst', 'hf:user/set@train', '')
    """
    return path if path.startswith(HUB) else Path(path).name


def write_record(path: Path, record: Record) -> None:
    """Replace a record; one line for each key, so that versions of a file can be compared."""
    make_directory(path.parent, "records")
    lines = (
        f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in record.model_dump(mode="json").items()
    )
    with replacing(path) as partial:
        partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_record(path: Path) -> Record:
    """Read one; AUNetError names the file and the first thing that is wrong."""
    return _parse(path, _load(path))


def read_records(paths: Sequence[Path]) -> Records:
    """Read record files, and directories with all that is below them, in the order of their names.

    A JSON file without a version, with another one, or without a family is not a record of this format: it is named and
    skipped. A file that says it is one and is not valid, or that is not JSON, is refused: AUNetError.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise AUNetError(f"{path}: no such file or directory")
        files += sorted(path.rglob("*.json")) if path.is_dir() else [path]
    records, skipped = [], []
    for path in dict.fromkeys(files):
        values = _load(path)
        if what := _otherness(values):
            skipped.append(f"{path}: skipped: it has {what}, so it is no record that can be read here")
        else:
            records.append(_parse(path, values))
    return Records(tuple(records), tuple(skipped))


def _otherness(values: Any) -> str | None:
    """What tells a JSON file from a record that can be read here; None if it is one, valid or not."""
    version = values.get("version") if isinstance(values, Mapping) else None
    if version != VERSION:
        return f"{'no version' if version is None else f'version {version}'}, not {VERSION}"
    return None if "family" in values else "no family"  # as the files of checkpoints, which have versions too


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AUNetError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise AUNetError(f"{path}: not valid JSON ({' '.join(str(error).split())}); remove it or restore it") from None


def _parse(path: Path, values: Any) -> Record:
    try:
        # Not strict: JSON has no tuples.
        return Record.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise AUNetError(f"{path}: {f'{key}: ' if key else ''}{message}; remove the file or restore it") from None


def difference(there: Any, here: Any, key: str = "") -> str | None:
    """The first place where two JSON values differ, as `KEY is HERE, there it is THERE`; None if nowhere.

    A key that is missing is null: so are settings that another version has and that were not used.

    >>> difference({"train": {"lr": 0.1}}, {"train": {"lr": 0.2}})
    'train.lr is 0.2, there it is 0.1'
    """
    if there == here:
        return None
    if isinstance(there, dict) and isinstance(here, dict):
        inside = [(name, there.get(name), here.get(name)) for name in {**here, **there}]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        inside = [(str(i), *pair) for i, pair in enumerate(zip(there, here, strict=True))]
    else:
        return f"{key} is {_short(here)}, there it is {_short(there)}"
    found = (difference(a, b, f"{key}.{name}".removeprefix(".")) for name, a, b in inside)
    return next((change for change in found if change), None)


def _short(value: Any) -> str:
    """As JSON; of what is longer than a line of text the beginning."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
