"""Every preset is a run; files build on them."""

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from aunet.bytes import VOCAB_SIZE
from aunet.config import LENGTHS, RunConfig
from aunet.errors import ConfigError
from aunet.presets import PRESETS, load_run, names, preset, table
from aunet.splitting import splitter
from aunet.train.plan import make_plan

SMALL = ["demo", "aunet2-2m", "aunet3-2m", "mamba-bytes-200k", "aunet2-23m"]
LARGE = ["aunet2-1b", "aunet3-1b", "aunet4-1b", "aunet4-1b-dm8", "aunet2-8b"]
SCALING = [name for name in names() if re.fullmatch(r"\w+-\de\d\d", name)]
BASELINES = ["transformer-bytes-1b", "mamba-bytes-1b", "transformer-bpe-1b", "transformer-bpe-7b"]


def test_every_configuration_of_the_paper_is_there() -> None:
    assert {*SMALL, *LARGE, *BASELINES} <= set(names())
    for system in ("aunet2", "aunet3", "transformer"):
        assert sum(name.startswith(f"{system}-") for name in SCALING) == 12
    assert len(names()) == len(SMALL) + len(LARGE) + len(BASELINES) + 36


@pytest.mark.parametrize("name", names())
def test_every_preset_is_a_run_with_a_plan(name: str) -> None:
    run = load_run(name)
    assert isinstance(run, RunConfig)
    assert PRESETS[name].description
    assert "\n" not in PRESETS[name].description
    tried = {*SMALL} - {"aunet2-23m"}
    clip = 1.0 if name in tried else 0.2  # tried on small models; else the paper's
    assert (run.train.clip, run.train.weight_decay, run.train.lr_floor) == (clip, 0.1, 0.01)
    assert ("over tokens" in PRESETS[name].description) == (run.model.vocab_size != VOCAB_SIZE)
    assert splitter(run.model.splitter) is not None
    plan = make_plan(run)
    assert plan.steps > 100
    assert 1e-4 < plan.lr < 1e-2


@pytest.mark.parametrize("name", [*LARGE, *(name for name in SCALING if name.startswith("aunet"))])
def test_the_papers_habits(name: str) -> None:
    run = load_run(name)
    assert run.data.seq_len == 8192
    assert [stage.window for stage in run.model.stages] == [512] + [None] * (len(run.model.stages) - 1)
    assert [stage.head_dim for stage in run.model.stages] == [64] + [128] * (len(run.model.stages) - 1)
    rules = {2: "word1", 3: "word1+word2", 4: "word1+word2+word4"}
    assert run.model.splitter == rules[len(run.model.stages)]


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("aunet2-1b", [1536, 5632]),
        ("aunet3-1b", [1536, 5632, 8192]),
        ("aunet4-1b", [1536, 5632, 8192, 12288]),
        ("aunet2-8b", [4096, 14336]),
        ("transformer-bpe-1b", [5632]),
        ("transformer-bpe-7b", [11008]),
        ("transformer-2e21", [6912]),
        ("transformer-1e22", [9216]),
    ],
)
def test_feed_forward_widths_are_the_papers(name: str, widths: list[int]) -> None:
    assert [stage.ffn_dim for stage in load_run(name).model.stages] == widths


@pytest.mark.parametrize(
    ("name", "compute", "units", "steps", "lr"),
    [
        ("aunet2-1b", 5.1e20, 1.6e6, 180_000, 1.65e-3),
        ("aunet3-1b", 6.7e20, 2.8e6, 105_000, 1.5e-3),
        ("aunet4-1b", 8.0e20, 2.8e6, 105_000, 1.5e-3),
        ("aunet2-8b", 1.2e22, 4.2e6, 277_834, 8.18e-4),
        ("transformer-bpe-1b", 6.6e20, 1.0e6, 60_000, 3e-3),
        ("aunet2-1e19", 1.1e19, 8.7e5, 56_240, 2.923e-3),
        ("aunet2-1e22", 1.1e22, 7.9e6, 193_096, 8.72e-4),
    ],
)
def test_training_rows_are_the_papers(name: str, compute: float, units: float, steps: int, lr: float) -> None:
    plan = make_plan(load_run(name))
    assert plan.compute == pytest.approx(compute, rel=0.06)
    assert plan.batch_bytes == pytest.approx(units, rel=0.02)
    assert plan.steps == pytest.approx(steps, rel=0.01)
    assert plan.lr == pytest.approx(lr, rel=0.01)


def test_a_preset_is_a_copy() -> None:
    preset("demo")["model"]["stages"][0]["dim"] = 1
    assert preset("demo")["model"]["stages"][0]["dim"] != 1


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no preset 'aunet4-2b'; did you mean aunet4-1b\?"):
        preset("aunet4-2b")
    with pytest.raises(ConfigError, match="no preset 'qqqqqq'; aunet train --list shows them"):
        load_run("qqqqqq")


def _write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_file_builds_on_a_preset(tmp_path: Path) -> None:
    file = _write(
        tmp_path / "run.yaml",
        "preset: aunet2-2m\ndata:\n  sources: [{path: a.txt}]\ntrain: {lr: 1e-4}\nmodel: {offsets: 8}\n",
    )
    run, base = load_run(file), load_run("aunet2-2m")
    assert run.data.sources[0].path == "a.txt"
    assert run.data.seq_len == base.data.seq_len
    assert (run.train.lr, run.train.compute) == (1e-4, base.train.compute)
    assert (run.model.offsets, run.model.stages) == (8, base.model.stages)
    assert load_run(file, ["train.lr=2e-4"]).train.lr == 2e-4


@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_replaces_the_one_below(tmp_path: Path, length: str) -> None:
    given = [f"train.{length}=50"]
    file = _write(tmp_path / "run.yaml", f"preset: aunet2-2m\ntrain: {{{length}: 50}}\n")
    other = _write(tmp_path / "other.yaml", "preset: aunet2-2m\ntrain: {steps: 7}\n")
    for run in (load_run("aunet2-2m", given), load_run(file), load_run(other, given)):
        assert {name for name in LENGTHS if getattr(run.train, name) is not None} == {length}


def test_two_lengths_in_one_place_stay_an_error(tmp_path: Path) -> None:
    file = _write(tmp_path / "run.yaml", "preset: aunet2-2m\ntrain: {steps: 7, gamma: 1}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: train: give one of .*, not steps and gamma"):
        load_run(file)
    with pytest.raises(ConfigError, match=r"preset demo: train: give one of"):
        load_run("demo", ["train.steps=7", "train.bytes=1e6"])


def test_errors_name_the_file_or_the_preset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^preset demo: unknown key train\.stesp; did you mean train\.steps\?"):
        load_run("demo", ["train.stesp=7"])
    bad = _write(tmp_path / "bad.yaml", "preset: dmeo\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml: preset: no preset 'dmeo'; did you mean demo\?"):
        load_run(bad)
    listed = _write(tmp_path / "list.yaml", "preset: [demo]\n")
    with pytest.raises(ConfigError, match=r"list\.yaml: preset: no preset"):
        load_run(listed)
    with pytest.raises(ConfigError, match=r": a directory; name a configuration, such as the run\.json"):
        load_run(str(tmp_path))
    with pytest.raises(ConfigError, match=r"gone\.yaml: No such file"):
        load_run(str(tmp_path / "gone.yaml"))
    whole = _write(tmp_path / "text.yaml", "preset: demo\ntrain: 3\n")
    with pytest.raises(ConfigError, match=r"text\.yaml: train: expected a mapping"):
        load_run(whole)
    empty = _write(tmp_path / "empty.yaml", "model:\ntarin:\n")
    with pytest.raises(ConfigError, match=r"empty\.yaml: model\.stages: field required\n.*did you mean train\?"):
        load_run(empty)


def test_a_section_with_nothing_below_it_is_empty(tmp_path: Path) -> None:
    file = _write(tmp_path / "run.yaml", "preset: demo\nmodel:\ntrain:  # as it is\ndata:\n")
    assert load_run(file) == load_run("demo")
    assert load_run(file, ["train.lr=1e-3"]) == load_run("demo", ["train.lr=1e-3"])
    (tmp_path / "config.json").write_text(json.dumps({"aunet": preset("demo")["model"]}))
    tuned = _write(tmp_path / "tuned.yaml", "model:\ntrain:\n")
    assert load_run(tuned, [f"train.init_from={tmp_path}"]).model == load_run("demo").model


def test_the_list_names_every_preset() -> None:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table())
    shown = capture.get()
    assert all(any(line.startswith(f"{name} ") for line in shown.splitlines()) for name in names())
