"""From a mapping to a typed configuration.

A configuration is a YAML or JSON mapping with the sections `model`, `data` and `train`. It may start from a preset
(`preset: demo`), and every value can be overridden by a dotted key (`train.lr=1e-3`, `model.stages.0.dim=64`).
Unknown keys are errors that name the nearest valid key; all problems are reported at once.
"""

import copy
import difflib
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from aunet.errors import ConfigError

C = typing.TypeVar("C", bound=BaseModel)


def validate(kind: type[C], values: Mapping[str, Any], origin: str) -> C:
    """Build a configuration; raises ConfigError with one line per problem, each naming `origin` and the dotted key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        # A list whose items are wrong is also reported as too short; the items say it.
        items = [item for item in error.errors() if item["type"] != "too_short" or not item["input"]]
        raise ConfigError("\n".join(f"{origin}: {_problem(kind, item)}" for item in items)) from None


def _problem(kind: type[BaseModel], item: Any) -> str:
    path = [str(part) for part in item["loc"]]
    key = ".".join(path)
    if item["type"] == "extra_forbidden":
        known = _fields_at(kind, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        prefix = ".".join([*path[:-1], ""])
        mend = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"unknown key {key}; {mend}"
    if item["type"] == "model_type":
        needed = ", ".join(_needed_at(kind, path))
        message = f"expected a mapping with {needed}" if needed else "expected a mapping"
    elif item["type"] == "tuple_type":
        message = "expected a list"
    else:
        message = item["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = "" if item["type"] in ("missing", "value_error") else f" (given: {item['input']!r})"
    return f"{key}: {message}{given}" if key else f"{message}{given}"


def _fields_at(kind: type[BaseModel], path: Sequence[str]) -> dict[str, FieldInfo]:
    """Fields of the model that sits at a dotted path."""
    current: Any = kind
    for part in path:
        if part.isdecimal():
            continue
        current = _model_in(current.model_fields[part].annotation)
    return dict(current.model_fields)


def _needed_at(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Those that have no default."""
    return [name for name, field in _fields_at(kind, path).items() if field.is_required()]


def _model_in(annotation: Any) -> Any:
    """The pydantic model inside `X`, `tuple[X, ...]` or `X | None`."""
    for inner in (annotation, *typing.get_args(annotation)):
        if isinstance(inner, type) and not isinstance(inner, types.GenericAlias) and issubclass(inner, BaseModel):
            return inner
    raise KeyError(annotation)


NOT_READABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)
"""What texts raise that are no YAML or JSON; what makes values of YAML's tags raises its own."""


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML or JSON mapping; raises ConfigError that names the file and the line."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            values = json.loads(text, object_pairs_hook=_once)
        else:
            values = yaml.load(text, Loader=_Loader)  # noqa: S506 (a subclass of the safe loader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except NOT_READABLE as error:
        raise ConfigError(
            f"{path}: not valid {'JSON' if path.suffix == '.json' else 'YAML'}: {_one_line(error)}"
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping with the keys model, data, train")
    return values


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set dotted keys (`train.lr=1e-3`, `model.stages.0.dim=64`); values are YAML.

    >>> apply_overrides({"train": {"lr": 1.0}}, ["train.lr=2e-3", "train.compile=true"])
    {'train': {'lr': 0.002, 'compile': True}}
    """
    result = copy.deepcopy(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"{override!r} is not KEY=VALUE; write for instance train.lr=1e-3")
        try:
            value = yaml.load(text, Loader=_Loader)  # noqa: S506 (a subclass of the safe loader)
        except NOT_READABLE as error:
            raise ConfigError(f"{key}: {text!r} is not valid YAML: {_one_line(error)}") from None
        _set(result, key, key.split("."), value)
    return result


def _set(target: Any, key: str, path: list[str], value: Any) -> None:
    for part in path[:-1]:
        place: Any = _index(target, key, part) if isinstance(target, list) else part
        if isinstance(target, dict):
            target.setdefault(place)
        if target[place] is None:  # or left empty, as a section in YAML
            target[place] = {}
        target = target[place]
        if not isinstance(target, dict | list):
            raise ConfigError(f"{key}: {part} is a value and has no keys below it")
    if isinstance(target, list):
        target[_index(target, key, path[-1])] = value
    else:
        target[path[-1]] = value


def _index(target: list[Any], key: str, part: str) -> int:
    if not part.isdecimal() or int(part) >= len(target):
        raise ConfigError(f"{key}: {part!r} is not a place in a list of {len(target)}")
    return int(part)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ValueError where a key stands twice."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key} stands twice")
        found[key] = value
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `1e-3` is a number, as YAML 1.2 has it, and `2026-11-27` a text: no key wants a date.

    A key that stands twice in a mapping is an error: the second would silently take the place of the first.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
