"""How tasks are run."""

from dataclasses import dataclass
from pathlib import Path

from aunet.errors import ConfigError


@dataclass(frozen=True)
class TaskOptions:
    """The same for all tasks of a run; what a task has no use for, it leaves alone."""

    data_dir: Path | None = None
    """Directory of data sets, DIR/<task>/...; None: the hub."""
    limit: int | None = None
    """The first examples of each task only."""
    fewshot: int | None = None
    """Examples in the prompt; None: as the task has it."""
    seed: int = 0
    """Of the choice of examples for the prompt, and of the bootstrap."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit: {self.limit} is not at least 1")
        if self.fewshot is not None and self.fewshot < 0:
            raise ConfigError(f"--fewshot: {self.fewshot} is negative")
        if self.data_dir is not None and not self.data_dir.is_dir():
            raise ConfigError(f"--data-dir: {self.data_dir} is not a directory; name the one that holds the data sets")
