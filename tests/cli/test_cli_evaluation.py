"""Scoring by command."""

import json
from pathlib import Path

import pytest

import aunet as library
from tests.runs import aunet, done, here, refused


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

    @pytest.mark.parametrize("flag", ["--limit", "--fewshot", "--seed", "--batch", "--cache", "--data-dir"])
    @pytest.mark.parametrize("value", ["0", "64"])
    def test_flags_of_tasks_are_refused_beside_files(self, work: Path, model: Path, flag: str, value: str) -> None:
        """At their defaults too, which say nothing either."""
        assert f"{flag}: is of --tasks" in refused("eval", model, work / "valid.jsonl", flag, value, code=2)
        assert "--text-field: is of FILES" in refused("eval", model, "--tasks", "cute", "--text-field", "t", code=2)

    def test_the_name_of_a_task_is_looked_up_before_the_model_is_read(self, work: Path) -> None:
        assert "cutee is unknown; near to it: cute" in refused("eval", work / "absent", "--tasks", "cutee", code=2)
