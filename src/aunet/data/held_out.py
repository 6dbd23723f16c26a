"""Held-out text: which it is, and that it is not trained on."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aunet.config import DataConfig, SourceConfig
from aunet.data.problems import Problems
from aunet.data.sources import HUB, SourcePlan, find_files
from aunet.errors import ConfigError


def identity(config: DataConfig) -> str:
    """Tells whether two scores are of the same text: of names and sizes of its files, and how much of it is scored.

    Not of their directories, so that the data of a run can be moved.
    """
    texts = [[(Path(path).name, _size(path)) for path in _files(source)] for source in config.valid]
    fields = [source.text_field for source in config.valid]
    return hashlib.sha256(json.dumps([texts, fields, config.valid_bytes]).encode()).hexdigest()[:16]


def refuse_overlap(config: DataConfig, plans: Sequence[SourcePlan]) -> None:
    """ConfigError that names both keys where a file of `valid` is one of `sources`; `plans`: of the sources."""
    trained = {
        _place(path): i
        for i, plan in enumerate(plans)
        for path in {block.path for lane in plan.lanes for block in lane}
    }
    _refuse({f"data.valid.{v}": source for v, source in enumerate(config.valid)}, config.sources, trained)


def refuse_trained(valid: Mapping[str, SourceConfig], sources: Sequence[SourceConfig]) -> None:
    """ConfigError where a set other than `data.valid`, by what it is called, has a file that is read in training."""
    _refuse(valid, sources, {_place(path): i for i, source in enumerate(sources) for path in _files(source)})


def _refuse(valid: Mapping[str, SourceConfig], sources: Sequence[SourceConfig], trained: Mapping[str, int]) -> None:
    """`trained`: the source of every file that is read."""
    for key, source in valid.items():
        for path in _files(source):
            s = trained.get(_place(path))
            if s is not None:
                raise ConfigError(
                    f"{key}: {path} is read by data.sources.{s} too ({sources[s].path}), and what is "
                    "trained on is not held out; take it out of one of them"
                )


def _files(source: SourceConfig) -> Iterator[str]:
    if source.path.startswith(HUB):
        yield source.path
    else:
        yield from find_files(source.path, Problems())


def _size(path: str) -> int:
    return 0 if path.startswith(HUB) else Path(path).stat().st_size


def _place(path: str) -> str:
    """The same for one file by two names."""
    if path.startswith(HUB):
        return path if "@" in path else f"{path}@train"
    return os.path.realpath(path)
