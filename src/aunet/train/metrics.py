"""Metrics: one JSON object per line in `metrics.jsonl`, and the same to TensorBoard or wandb where asked for."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from aunet.config import RunConfig
from aunet.data.held_out import identity
from aunet.errors import AUNetError, MissingExtra
from aunet.files import replacing

FILE = "metrics.jsonl"
HELD_OUT = "held_out"
"""The identity of the text on which a score was made."""
WANDB = "wandb-id"
"""Where a run keeps the name by which Weights & Biases knows it again."""


class Sink(Protocol):
    """Somewhere metrics go."""

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Take the values of one step."""

    def close(self) -> None:
        """Write out what is held."""


class Metrics:
    """Appends lines to `directory/metrics.jsonl`; those past `resumed_step` are dropped, the run writes them again.

    A line that a crash cut off is dropped too.
    """

    def __init__(self, directory: Path, config: RunConfig, resumed_step: int) -> None:
        path = directory / FILE
        try:
            kept = [line for line in read(path) if line["step"] <= resumed_step]
        except FileNotFoundError:
            kept = []
        with replacing(path) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._held_out = identity(config.data)
        scored = [line for line in kept if "valid_bits_per_byte" in line]
        # Lines of older versions do not say which text it was.
        self._valid = {line["step"]: line for line in scored if line.get(HELD_OUT, self._held_out) == self._held_out}
        self._path = path
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._sinks: list[Sink] = []
        if config.train.tensorboard:
            self._sinks.append(TensorBoard(directory, resumed_step))
        if config.train.wandb:
            self._sinks.append(Wandb(directory, config))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One line `{"step": step, **values}`; a score has the identity of its text beside it."""
        line = {"step": step, **values}
        if "valid_bits_per_byte" in values:
            self._valid[step] = dict(values)
            line[HELD_OUT] = self._held_out
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise AUNetError(f"{self._path}: cannot be written ({error.strerror})") from None
        for sink in self._sinks:
            sink.write(step, values)

    def validated(self, step: int) -> dict[str, float] | None:
        """What the validation after this step found, in this run or the one that is resumed; None if there was none.

        Scores of another text than that of the configuration are none.
        """
        found = self._valid.get(step)
        return found and {k.removeprefix("valid_"): v for k, v in found.items() if k.startswith("valid_")}

    def scores(self) -> dict[int, float]:
        """Bits per byte on the held-out text of every step that was validated on it."""
        return {step: line["valid_bits_per_byte"] for step, line in self._valid.items()}

    def close(self) -> None:
        """Close the file and the sinks."""
        try:
            self._file.close()
        except OSError as error:
            raise AUNetError(f"{self._path}: cannot be written ({error.strerror})") from None
        for sink in self._sinks:
            sink.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics file."""
    lines = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
    return lines


class TensorBoard:
    """Scalars in `directory/tensorboard`."""

    def __init__(self, directory: Path, resumed_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra("tensorboard", "track", "train.tensorboard") from None
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """All numbers, by name."""
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class Wandb:
    """A Weights & Biases run, resumed under the same id when the training run is."""

    def __init__(self, directory: Path, config: RunConfig) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtra("wandb", "wandb", "train.wandb") from None
        known = _wandb_id(directory / WANDB)
        try:
            self._run = wandb.init(
                project="aunet",
                name=directory.name,
                id=known,
                resume="allow",
                dir=directory,
                config=config.model_dump(),
            )
        except Exception as error:  # of logins, keys and the network: each has its own class
            reason = " ".join(str(error).split())[:200]
            raise AUNetError(f"train.wandb: {reason}; see to it (wandb login), or set train.wandb=false") from None

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """All values, by name."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def _wandb_id(path: Path) -> str:
    """Drawn once for a run: runs in directories of one name, or again in the same, are others."""
    if not path.exists():
        with replacing(path) as partial:
            partial.write_text(secrets.token_hex(8), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
