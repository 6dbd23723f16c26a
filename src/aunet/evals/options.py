"""How tasks are run: what is the same for all tasks of a run, and options of a task's own from TASK.KEY=VALUE."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from aunet.data.problems import Problems
from aunet.errors import ConfigError

FLAG = "--task-option"


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
    problems: Problems = field(default_factory=Problems, compare=False)
    """Counts what of the data can't be used."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit: {self.limit} is not at least 1")
        if self.fewshot is not None and self.fewshot < 0:
            raise ConfigError(f"--fewshot: {self.fewshot} is negative")
        if not 0 <= self.seed < 1 << 32:
            raise ConfigError(f"--seed: {self.seed} is not from 0 to {(1 << 32) - 1}")
        if self.data_dir is not None and not self.data_dir.is_dir():
            raise ConfigError(f"--data-dir: {self.data_dir} is not a directory; name the one that holds the data sets")

    @property
    def source(self) -> str:
        """Where the data are from, as results name it."""
        return "hub" if self.data_dir is None else "local"


def own_keys(kind: type[TaskOptions]) -> list[str]:
    """The options that a task has beyond those of all tasks."""
    return [field.name for field in fields(kind) if field.name not in TaskOptions.__dataclass_fields__]


def own_options(
    kinds: Mapping[str, type[TaskOptions]], common: TaskOptions, given: Sequence[str] = ()
) -> dict[str, TaskOptions]:
    """The options of each task of `kinds`, with what TASK.KEY=VALUE sets; a list has commas between its values.

    ConfigError names the key and the mend.
    """
    values: dict[str, dict[str, Any]] = {task: {} for task in kinds}
    for one in given:
        place, equals, text = one.partition("=")
        task, dot, key = place.partition(".")
        if not (equals and dot and task and key and text):
            raise ConfigError(f"{FLAG}: {one!r} is not TASK.KEY=VALUE; write for instance noise.rates=0.05,0.1")
        if task not in kinds:
            tasks = ", ".join(kind for kind in kinds if own_keys(kinds[kind])) or "none of them"
            raise ConfigError(f"{FLAG}: {place}: {task} is not among the --tasks that have options ({tasks})")
        known = own_keys(kinds[task])
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            mend = f"did you mean {task}.{near[0]}?" if near else f"{task} has {', '.join(known) or 'none'}"
            raise ConfigError(f"{FLAG}: {place} is unknown; {mend}")
        values[task][key] = _value(place, text, get_type_hints(kinds[task])[key])
    return {task: kind(**vars(common), **values[task]) for task, kind in kinds.items()}


def _value(place: str, text: str, kind: Any) -> Any:
    several = get_origin(kind) is tuple
    try:
        return TypeAdapter(kind).validate_python([part.strip() for part in text.split(",")] if several else text)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{FLAG}: {place}: {first['input']!r}: {first['msg'].lower()}") from None
