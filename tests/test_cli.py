"""The command line around one small trained model.

A process takes seconds to import torch, so what every command has in common is tested with real processes (`process`),
and most cases of a command by calling its entry point here.
"""

import json
import os
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import aunet as library
from tests.runs import aunet, command, environment, here, write_config, write_text

PROMPT = "the old dog runs "


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a trained model in `out`, its configuration and its texts."""
    directory = tmp_path_factory.mktemp("work")
    result = aunet("train", write_config(directory))
    assert result.returncode == 0, result.stderr
    return directory


@pytest.fixture(scope="module")
def model(work: Path) -> Path:
    return work / "out"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


def done(*arguments: str | Path, run: Callable[..., Any] = here, **options: Any) -> str:
    """What a command that must work printed."""
    result = run(*arguments, **options)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


def refused(*arguments: str | Path, code: int = 2, run: Callable[..., Any] = here, **options: Any) -> str:
    """The one line of a command that must fail."""
    result = run(*arguments, **options)
    assert result.returncode == code, (result.stdout, result.stderr)
    (line,) = result.stderr.splitlines()
    assert line.startswith("aunet: error: ")
    assert result.stdout == ""
    return line.removeprefix("aunet: error: ")


class TestGenerate:
    def test_prints_the_prompt_and_its_continuation(self, model: Path) -> None:
        options = ["--prompt", PROMPT, "--max-bytes", "30", "--seed", "3"]
        process = subprocess.run(command("generate", model, *options), capture_output=True, env=environment())
        values = json.loads(done("generate", model, *options, "--json"))
        assert process.stdout.decode() == PROMPT + values["text"] + "\n"
        assert values["prompt"] == PROMPT
        assert values["seed"] == 3
        assert values["finish"] in ("length", "eos")
        found = library.load(model).generate(PROMPT, max_bytes=30, seed=3, as_bytes=True)
        assert bytes.fromhex(values["bytes_hex"]) == found
        assert values["text"] == found.decode(errors="replace")

    def test_an_empty_prompt(self, model: Path) -> None:
        values = json.loads(done("generate", model, "--max-bytes", "10", "--json", "--temperature", "0"))
        assert values["prompt"] == ""
        assert bytes.fromhex(values["bytes_hex"]) == library.load(model).generate(
            max_bytes=10, temperature=0, as_bytes=True
        )

    def test_ends_before_a_stop_string(self, model: Path) -> None:
        options = ["--prompt", PROMPT, "--max-bytes", "40", "--temperature", "0", "--json"]
        whole = json.loads(done("generate", model, *options))["text"]
        stop = whole[5:7]
        values = json.loads(done("generate", model, *options, "--stop", "never\n", "--stop", stop))
        assert values["text"] == whole[: whole.index(stop)]
        assert values["finish"] == "stop"

    def test_a_prompt_that_is_not_utf8(self, model: Path) -> None:
        process = subprocess.run(
            [*command("generate", model, "--max-bytes", "2", "--prompt"), b"a\xffb"],
            capture_output=True,
            env=environment(),
        )
        assert process.returncode == 0, process.stderr
        assert process.stdout.decode().startswith("a\N{REPLACEMENT CHARACTER}b")

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--temperature", "-1"),
            ("--top-k", "0"),
            ("--top-p", "2"),
            ("--max-bytes", "-1"),
            ("--stop", ""),
            ("--seed", "123456789012345678901234567890"),
        ],
    )
    def test_bad_values(self, model: Path, option: str, value: str) -> None:
        assert option.removeprefix("--").replace("-", "_") in refused("generate", model, option, value)

    def test_a_reader_that_leaves_early_is_no_error(self, model: Path) -> None:
        process = subprocess.Popen(
            command("generate", model, "--max-bytes", "2000"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        process.wait()


class TestEval:
    def test_json_equals_the_library(self, work: Path, model: Path) -> None:
        (work / "note.txt").write_text("The house under the tree.\n")
        values = json.loads(done("eval", model, work / "valid.jsonl", work / "note.txt", "--json", run=aunet))
        texts = [json.loads(line)["text"] for line in (work / "valid.jsonl").read_text().splitlines()]
        loaded = library.load(model)
        everything = [*texts, "The house under the tree.\n"]
        assert values["bits_per_byte"] == pytest.approx(loaded.bits_per_byte(everything), rel=1e-6)
        assert values["bytes"] == sum(map(len, everything))
        per_file = values["files"][str(work / "valid.jsonl")]["bits_per_byte"]
        assert per_file == pytest.approx(loaded.bits_per_byte(texts), rel=1e-6)

    def test_the_table(self, work: Path, model: Path) -> None:
        shown = done("eval", model, work / "valid.jsonl")
        assert "bits per byte" in shown
        assert "valid.jsonl" in shown

    def test_what_was_skipped_is_said_beside_the_result(self, work: Path, model: Path) -> None:
        (work / "mixed.jsonl").write_text('{"text": "kept"}\n{"body": "x"}\n')
        result = here("eval", model, work / "mixed.jsonl", "--json")
        assert json.loads(result.stdout)["documents"] == 1
        assert "mixed.jsonl:2" in result.stderr

    def test_what_cannot_be_scored(self, work: Path, model: Path) -> None:
        assert "absent.txt" in refused("eval", model, work / "absent.txt", code=1)
        assert "no_such" in refused("eval", model, work / "valid.jsonl", "--text-field", "no_such", code=1)


class TestInspect:
    def test_in_the_terminal(self, model: Path) -> None:
        shown = done("inspect", model, "the cat, 12\n")
        assert "cat" in shown

    def test_standard_input_and_a_page(self, model: Path, tmp_path: Path) -> None:
        page = tmp_path / "page.html"
        assert str(page) in done("inspect", model, "-", "--html", page, given="the <b>cat</b> é".encode())
        text = page.read_text()
        assert "<html" in text
        assert "<b>cat" not in text

    @pytest.mark.parametrize("text", ["", "é\u0301漢", "no-split"])
    def test_odd_texts(self, model: Path, text: str) -> None:
        done("inspect", model, text)

    def test_a_page_that_cannot_be_written(self, model: Path, tmp_path: Path) -> None:
        assert "--html" in refused("inspect", model, "x", "--html", tmp_path / "absent" / "page.html", code=1)


class TestInfo:
    KEYS = ("parameters", "flops_per_byte", "stages")

    def test_a_model_a_file_and_a_preset(self, work: Path, model: Path) -> None:
        of_model = json.loads(done("info", model, "--json"))
        of_file = json.loads(done("info", work / "config.yaml", "data.seq_len=8192", "--json"))
        of_preset = json.loads(done("info", "aunet3-1b", "--json"))
        for values in (of_model, of_file, of_preset):
            assert all(values[key] for key in self.KEYS)
        assert of_model["parameters"] == of_file["parameters"]
        parameters = sum(tensor.numel() for tensor in load_file(model / "model.safetensors").values())
        assert of_model["parameters"] == parameters
        assert [len(values["stages"]) for values in (of_model, of_preset)] == [2, 3]

    def test_the_table(self, model: Path) -> None:
        assert "parameters" in done("info", model)

    def test_a_text_to_measure(self, work: Path, model: Path) -> None:
        values = json.loads(done("info", model, "--text", work / "valid.jsonl", "--json"))
        assert values["stages"][1]["measured_contraction"] > 1

    def test_what_is_refused(self, work: Path, model: Path) -> None:
        assert "aunet2-2m" in refused("info", "aunet2-2n")
        assert "absent" in refused("info", model, "--text", work / "absent", code=1)
        assert "did you mean" in refused("info", model, "data.seqlen=3")


class TestSplit:
    def test_a_file_and_standard_input_are_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "text.txt"
        path.write_bytes(b"One two, 12\xff three")
        options = ["--rule", "word1+word2"]
        shown = done("split", path, *options)
        assert "two" in shown
        process = subprocess.run(
            command("split", "-", *options), input=path.read_bytes(), capture_output=True, env=environment()
        )
        assert process.stdout.decode() == shown

    def test_json_has_the_levels_and_spans(self, tmp_path: Path) -> None:
        path = tmp_path / "text.txt"
        path.write_text("one two three four")
        values = json.loads(done("split", path, "--rule", "word1+word2", "--json"))
        levels = library.splitter("word1+word2").levels(path.read_bytes())
        assert values["levels"] == levels.tolist()
        assert values["bytes"] == 18
        assert [stage["units"] for stage in values["stages"]] == [int((levels >= s).sum()) for s in (1, 2)]
        for stage in values["stages"]:
            spans = stage["spans"]
            assert (spans[0][0], spans[-1][1]) == (0, 18)
            assert all(a[1] == b[0] for a, b in pairwise(spans))

    def test_counts(self, tmp_path: Path) -> None:
        path = tmp_path / "text.txt"
        path.write_text("one two three four")
        assert "word1" in done("split", path, "--count")
        values = json.loads(done("split", path, "--count", "--json"))
        assert values["stages"][0]["units"] == 3
        assert "levels" not in values

    def test_an_empty_text(self) -> None:
        assert json.loads(done("split", "-", "--json", given=b""))["bytes"] == 0
        done("split", "-", given=b"")
        done("split", "-", "--count", given=b"")

    def test_what_is_refused(self, tmp_path: Path) -> None:
        assert "absent" in refused("split", tmp_path / "absent", code=1)
        assert "word1" in refused("split", "-", "--rule", "wrod1", given=b"x")


class TestConvert:
    @staticmethod
    def reference(shared: Callable[[str], Path]) -> tuple[dict[str, torch.Tensor], Path]:
        tensors = load_file(shared("golden") / "aunet2.safetensors")
        return tensors, shared("golden") / "aunet2.json"

    def test_safetensors_and_pth_become_the_same_model(self, shared: Callable[[str], Path], tmp_path: Path) -> None:
        tensors, config = self.reference(shared)
        weights = {name: tensor for name, tensor in tensors.items() if name.startswith("weights/")}
        save_file(weights, tmp_path / "reference.safetensors")
        bare = {name.removeprefix("weights/"): tensor for name, tensor in weights.items()}
        torch.save(bare, tmp_path / "consolidated.pth")
        for name in ("reference.safetensors", "consolidated.pth"):
            out = tmp_path / f"from-{name}"
            assert "2 stages" in done("convert", "lingua", tmp_path / name, config, out)
            logits = library.load(out).logits(tensors["input_ids"], tensors["level_mask"])
            assert (logits - tensors["logits"]).abs().max() < 2e-5
        done("generate", tmp_path / "from-consolidated.pth", "--max-bytes", "3")

    def test_a_pickle_that_runs_commands_is_refused(self, tmp_path: Path) -> None:
        class Malicious:
            def __reduce__(self) -> Any:
                return os.system, (f"touch {tmp_path / 'executed'}",)

        torch.save({"tok_embeddings.weight": Malicious()}, tmp_path / "evil.pth")
        config = tmp_path / "params.json"
        config.write_text(json.dumps({"dimensions": [8], "layers": [1], "head_dims": [4], "ffn_hidden": [16]}))
        assert "evil.pth" in refused(
            "convert", "lingua", tmp_path / "evil.pth", config, tmp_path / "out", code=1, run=aunet
        )
        assert not (tmp_path / "executed").exists()
        assert not (tmp_path / "out").exists()

    def test_what_is_refused(self, tmp_path: Path) -> None:
        config = tmp_path / "params.json"
        config.write_text(json.dumps({"dimensions": [8], "layers": [1], "head_dims": [4], "ffn_hidden": [16]}))
        out = tmp_path / "out"
        assert "absent" in refused("convert", "lingua", tmp_path / "absent.pth", config, out, code=1)
        assert "absent" in refused("convert", "lingua", tmp_path / "absent.pth", tmp_path / "absent.json", out)
        (tmp_path / "text.safetensors").write_text("not tensors")
        assert "text.safetensors" in refused("convert", "lingua", tmp_path / "text.safetensors", config, out, code=1)
        (tmp_path / "text.pth").write_text("not tensors")
        assert "text.pth" in refused("convert", "lingua", tmp_path / "text.pth", config, out, code=1)
        torch.save({"tok_embeddings.weight": torch.zeros(258, 8)}, tmp_path / "part.pth")
        assert "missing" in refused("convert", "lingua", tmp_path / "part.pth", config, out)
        assert not out.exists()


class TestTrain:
    def test_the_list_of_presets(self) -> None:
        shown = done("train", "--list")
        assert all(name in shown for name in ("demo", "aunet2-2m", "aunet3-1b"))

    def test_what_is_refused(self, work: Path, tmp_path: Path) -> None:
        assert "aunet train --list" in refused("train")
        assert "aunet2-2m" in refused("train", "aunet2-2n")
        assert "absent.yaml" in refused("train", tmp_path / "absent.yaml")
        values = yaml.safe_load((work / "config.yaml").read_text())
        values["train"]["bacth_bytes"] = 1
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        line = refused("train", path, run=aunet)
        assert "train.bacth_bytes" in line
        assert "did you mean train.batch_bytes" in line
        path.write_text("model: [")
        assert "not valid YAML" in refused("train", path)

    def test_sources_that_cannot_be_read(self, work: Path, tmp_path: Path) -> None:
        write_text(tmp_path / "train.jsonl", 2)
        assert "absent.jsonl" in refused(
            "train",
            work / "config.yaml",
            f"data.sources=[{{path: {tmp_path}/absent.jsonl}}]",
            f"train.out={tmp_path}/out",
            code=1,
        )


COMMANDS = ["train", "demo", "generate", "eval", "inspect", "info", "split", "convert"]


def test_without_arguments_the_help_is_shown() -> None:
    result = aunet()  # python -m aunet
    assert all(name in result.stdout + result.stderr for name in COMMANDS)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["generate", "eval", "inspect"])
def test_a_model_that_is_not_there(tmp_path: Path, name: str) -> None:
    rest = [] if name == "generate" else ["x"]
    assert "absent" in refused(name, tmp_path / "absent", *rest, code=1)


def test_a_device_that_is_not_there(model: Path) -> None:
    assert "device" in refused("generate", model, "--device", "nonsense", code=1)


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["generate"], ["generate", "x", "--top-k", "many"], ["convert", "x"]]
)
def test_usage_errors_name_the_mistake(arguments: list[str]) -> None:
    result = here(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr
