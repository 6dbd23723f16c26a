"""Looking at models, texts and checkpoints by command."""

import json
import os
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import aunet as library
from tests.runs import aunet, command, done, environment, here, refused


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

    def test_lines_of_a_text_that_are_skipped_are_told(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text('{"text": "one two"}\nno JSON\n')
        result = here("info", "demo", "--text", path, "--json")
        assert json.loads(result.stdout)["stages"][1]["measured_contraction"] > 1
        assert result.stderr.startswith(f"skipped 1 x malformed JSON, first {path}:2: ")

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
