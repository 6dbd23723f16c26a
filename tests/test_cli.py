"""The commands in real processes: what they print, how they fail."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import aunet as library
from tests.runs import aunet, write_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    result = aunet("train", write_config(directory))
    assert result.returncode == 0, result.stderr
    return directory / "out"


def fails(*arguments: str | Path, code: int, says: str, **options: str) -> None:
    """One line on stderr that says what is wrong, and no traceback."""
    result = aunet(*arguments, **options)
    assert result.returncode == code, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("aunet: error: ")
    assert says in lines[0]


def test_generate_is_reproducible_and_valid_text(model: Path) -> None:
    results = [
        aunet("generate", model, "--prompt", "the cat ", "--max-bytes", "40", "--seed", s) for s in ("1", "1", "2")
    ]
    assert [r.returncode for r in results] == [0, 0, 0]
    assert results[0].stdout == results[1].stdout != results[2].stdout
    assert results[0].stdout.startswith("the cat ")


def test_generate_json_has_text_bytes_and_why_it_ended(model: Path) -> None:
    result = aunet("generate", model, "--max-bytes", "30", "--temperature", "0", "--json")
    found = json.loads(result.stdout)
    assert found["finish"] in ("eos", "length")
    assert bytes.fromhex(found["bytes_hex"]).decode(errors="replace") == found["text"]
    text = library.load(model).generate("", max_bytes=30, temperature=0)
    assert found["text"] == text


def test_generate_stops_before_the_stop_string(model: Path) -> None:
    whole = json.loads(aunet("generate", model, "--max-bytes", "40", "--seed", "3", "--json").stdout)["text"]
    stop = whole[10:13]
    cut = json.loads(aunet("generate", model, "--max-bytes", "40", "--seed", "3", "--stop", stop, "--json").stdout)
    assert cut["finish"] == "stop"
    assert cut["text"] == whole[: whole.index(stop)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--temperature", "-1"], "temperature: -1.0 is not 0 or a positive number"),
        (["--top-k", "0"], "top_k: 0 is not at least 1"),
        (["--top-p", "1.5"], "top_p: 1.5 is not above 0 and at most 1"),
        (["--max-bytes", "-2"], "max_bytes: -2 is negative"),
        (["--stop", ""], "stop: an empty stop string"),
    ],
)
def test_impossible_sampling_is_one_line(model: Path, options: list[str], says: str) -> None:
    fails("generate", model, *options, code=2, says=says)


def test_eval_gives_each_file_and_the_total(model: Path, tmp_path: Path) -> None:
    texts = {"a.txt": "the cat walks over the house.\n" * 20, "b.txt": "Größe, naïve 日本語"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    result = aunet("eval", model, tmp_path / "a.txt", tmp_path / "b.txt", "--json")
    found = json.loads(result.stdout)
    loaded = library.load(model)
    assert found["bits_per_byte"] == pytest.approx(loaded.bits_per_byte(list(texts.values())), abs=1e-4)
    for name, text in texts.items():
        one = found["files"][str(tmp_path / name)]
        assert one["bits_per_byte"] == pytest.approx(loaded.bits_per_byte(text), abs=1e-4)
        assert one["bytes"] == len(text.encode())
        assert one["characters"] == len(text)
    assert "bits per byte" in aunet("eval", model, tmp_path / "a.txt").stdout


def test_eval_names_what_it_cannot_read(model: Path, tmp_path: Path) -> None:
    fails("eval", model, tmp_path / "no.txt", code=1, says="no.txt: no such file")
    (tmp_path / "bad.jsonl").write_text('{"body": "x"}\n')
    fails("eval", model, tmp_path / "bad.jsonl", code=1, says="the line has the keys: body")


def test_inspect_in_the_terminal_and_as_a_page(model: Path, tmp_path: Path) -> None:
    shown = aunet("inspect", model, "the cat <b> walks")
    assert shown.returncode == 0
    assert "bits" in shown.stdout
    assert "|" in shown.stdout
    page = tmp_path / "page.html"
    assert aunet("inspect", model, "the cat <b> walks", "--html", page).returncode == 0
    text = page.read_text()
    assert text.startswith(("<!doctype html>", "<!DOCTYPE html>"))
    assert "<b>" not in text


def test_info_of_model_configuration_and_preset(model: Path) -> None:
    found = {
        name: json.loads(aunet("info", target, "--json").stdout)
        for name, target in (("model", model), ("file", model.parent / "config.yaml"), ("preset", "aunet2-1b"))
    }
    assert found["model"]["parameters"] == found["file"]["parameters"]
    assert found["preset"]["parameters"] == pytest.approx(1.32e9, rel=0.02)
    assert found["preset"]["flops_per_byte"] == pytest.approx(1.8e9, rel=0.05)
    assert len(found["preset"]["stages"]) == 2
    assert sum(stage["parameters"] for stage in found["preset"]["stages"]) == found["preset"]["parameters"]


def test_info_measures_contraction_beside_the_expected(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("four char word each " * 50)
    found = json.loads(aunet("info", model, "--text", tmp_path / "t.txt", "--json").stdout)
    assert found["stages"][1]["measured_contraction"] == pytest.approx(5.0, abs=0.2)
    assert found["stages"][1]["contraction"] == 4.9


def test_split_counts_and_shows_a_file_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one two three 4567.\n")
    levels = library.splitter("word1+word2").levels(b"one two three 4567.\n")
    found = json.loads(aunet("split", "--rule", "word1+word2", tmp_path / "t.txt", "--count", "--json").stdout)
    assert found["bytes"] == 20
    assert [stage["stage"] for stage in found["stages"]] == [2, 3]
    assert aunet("split", "-", input="one two").stdout.strip()
    assert (
        json.loads(aunet("split", "--rule", "word1+word2", "-", "--json", input="one two three 4567.\n").stdout)[
            "levels"
        ]
        == levels.tolist()
    )
    fails("split", "--rule", "wrod1", tmp_path / "t.txt", code=2, says="did you mean word1?")
    fails("split", tmp_path / "no.txt", code=1, says="no.txt")


def test_convert_reads_safetensors_and_weights_only_pth(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    golden = shared("golden")
    tensors = load_file(golden / "aunet3.safetensors")
    bare = {name.removeprefix("weights/"): t.clone() for name, t in tensors.items() if name.startswith("weights/")}
    save_file(bare, tmp_path / "bare.safetensors")
    torch.save({"model": bare}, tmp_path / "consolidated.pth")
    sources = [golden / "aunet3.safetensors", tmp_path / "bare.safetensors", tmp_path / "consolidated.pth"]
    for i, source in enumerate(sources):
        result = aunet("convert", "lingua", source, golden / "aunet3.json", tmp_path / str(i))
        assert result.returncode == 0, result.stderr
        logits = library.load(tmp_path / str(i)).logits(tensors["input_ids"], tensors["level_mask"])
        assert (logits - tensors["logits"]).abs().max() < 2e-5
    fails("convert", "lingua", sources[1], golden / "aunet2.json", tmp_path / "x", code=2, says="tensors are not known")


class Harm:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch harmed",)


def test_a_pth_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Harm()}, tmp_path / "bad.pth")
    (tmp_path / "c.json").write_text('{"dimensions": [16], "layers": [1], "head_dims": [8], "strategy": {}}')
    fails(
        "convert", "lingua", tmp_path / "bad.pth", tmp_path / "c.json", tmp_path / "o", code=1, says="cannot be read",
        cwd=str(tmp_path),
    )  # fmt: skip
    assert not (tmp_path / "harmed").exists()


def test_train_lists_presets() -> None:
    listed = aunet("train", "--list").stdout
    for name in ("demo", "aunet2-1b", "aunet3-1b", "aunet4-1b", "aunet2-8b", "aunet2-1e19", "aunet3-1e22"):
        assert name in listed


def test_wrong_configurations_are_named_with_the_nearest_key(tmp_path: Path) -> None:
    fails("train", "demo0", code=2, says="did you mean demo?")
    fails("train", "demo", "train.lrr=1", code=2, says="unknown key train.lrr; did you mean train.lr?")
    fails("train", "demo", "train.lr", code=2, says="is not KEY=VALUE")
    fails("train", tmp_path / "no.yaml", code=2, says="No such file")
    config = write_config(tmp_path)
    fails("train", config, "model.stages.0.head_dim=5", code=2, says="head_dim 5 does not divide dim 16")
    fails("train", config, "model.splitter=word1+word2", code=2, says="2 stages need a splitter with 1 levels")
    fails("train", config, "data.sources=[{path: nowhere/}]", code=1, says="nowhere/: no such file or directory")


def test_unfinished_and_damaged_models_say_so(model: Path, tmp_path: Path) -> None:
    fails("generate", tmp_path, code=1, says="no config.json there")
    (tmp_path / "checkpoints").mkdir()
    fails("generate", tmp_path, code=1, says="has not ended; continue it with aunet train")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((model / "config.json").read_bytes())
    (broken / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-100])
    fails("eval", broken, "x.txt", code=1, says="model.safetensors: cannot be read")


def test_the_command_alone_shows_help() -> None:
    result = aunet()
    for name in ("train", "generate", "eval", "inspect", "info", "split", "convert", "demo"):
        assert name in result.stdout + result.stderr
