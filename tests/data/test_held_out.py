"""Held-out text: the same by its identity, and never a part of what is trained on."""

from pathlib import Path

import pytest
from corpora import Residues, write

from aunet.config import DataConfig, SourceConfig
from aunet.data import Loader
from aunet.data.blocks import Block
from aunet.data.held_out import identity, refuse_overlap
from aunet.data.sources import SourcePlan
from aunet.errors import ConfigError


def sources(*paths: Path | str) -> tuple[SourceConfig, ...]:
    return tuple(SourceConfig(path=str(path)) for path in paths)


def texts(root: Path) -> Path:
    for name in ("a", "b", "held"):
        write(root / "text" / f"{name}.jsonl", [f"The text of {name}."])
    return root / "text"


@pytest.mark.parametrize("other", ["", "*.jsonl", "held.jsonl", "../link.jsonl"])
def test_held_out_text_is_not_trained_on(tmp_path: Path, other: str) -> None:
    folder = texts(tmp_path)
    (tmp_path / "link.jsonl").symlink_to(folder / "held.jsonl")
    config = DataConfig(sources=sources(folder / "a.jsonl", folder / other), valid=sources(folder / "held.jsonl"))
    with pytest.raises(ConfigError) as caught:
        Loader(config, Residues())
    assert str(caught.value) == (
        f"data.valid.0: {folder / 'held.jsonl'} is read by data.sources.1 too ({folder / other}), and what is trained "
        "on is not held out; take it out of one of them"
    )


def test_files_beside_each_other_are_other_texts(tmp_path: Path) -> None:
    folder = texts(tmp_path)
    with Loader(DataConfig(sources=sources(folder / "a.jsonl"), valid=sources(folder / "b.jsonl")), Residues()):
        pass


def test_splits_of_the_hub_are_compared_by_name() -> None:
    def plan(path: str) -> SourcePlan:
        return SourcePlan(path, "text", ((Block("hf", path, 0, 1, 1.0, 0),),), (1.0,), 1.0, 1, 0, "")

    def both(source: str, valid: str) -> None:
        refuse_overlap(DataConfig(sources=sources(source), valid=sources(valid)), [plan(source)])

    with pytest.raises(ConfigError, match=r"data\.valid\.0: hf:one@train is read by data\.sources\.0 too"):
        both("hf:one", "hf:one@train")
    both("hf:one", "hf:one@test")


def test_an_identity_is_of_names_sizes_and_how_much_is_scored(tmp_path: Path) -> None:
    def of(folder: Path, **values: int) -> str:
        return identity(DataConfig(valid=sources(folder), **values))

    first = of(texts(tmp_path / "one"))
    moved = texts(tmp_path / "two")
    assert of(moved) == first
    assert of(moved, valid_bytes=7) != first
    write(moved / "held.jsonl", ["Longer than it was before."])
    assert of(moved) != first
    assert identity(DataConfig(valid=sources("hf:one@test"))) != identity(DataConfig(valid=sources("hf:two@test")))
