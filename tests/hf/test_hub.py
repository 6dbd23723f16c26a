"""What would be uploaded is a complete model directory; nothing here reaches a network."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

import aunet
from aunet.hf import AUNetForCausalLM
from tests.runs import aunet as command

FILES = {
    "README.md",
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer_config.json",
}
PROMPT = "She walks "


class Hub:
    """Stands where the hub would be, and keeps what it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *present: str) -> None:
        self.calls: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        monkeypatch.setattr(HfApi, "create_repo", self._create)
        monkeypatch.setattr(HfApi, "file_exists", lambda _, repo_id, name: name in present)
        monkeypatch.setattr(HfApi, "upload_folder", self._upload)

    def _create(self, repo_id: str, **options: Any) -> Any:
        self.calls.append(options)
        return SimpleNamespace(repo_id=f"someone/{repo_id}")

    def _upload(self, folder_path: Path, ignore_patterns: list[str], **options: Any) -> str:
        self.calls.append(options)
        self.files = {
            path.name: path.read_bytes() for path in Path(folder_path).iterdir() if path.name not in ignore_patterns
        }
        return "a commit"


@pytest.fixture
def model(trained: Path) -> AUNetForCausalLM:
    return AutoModelForCausalLM.from_pretrained(trained)


def test_a_saved_directory_is_complete(model: AUNetForCausalLM, trained: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, facts={"data": "pseudo-English", "bits per byte": 1.25})
    assert {path.name for path in tmp_path.iterdir()} == FILES
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("aunet", "text-generation")
    assert "- data: pseudo-English\n- bits per byte: 1.25\n" in card.text
    text = aunet.load(trained).generate(PROMPT, max_bytes=20, temperature=0)
    assert aunet.load(tmp_path).generate(PROMPT, max_bytes=20, temperature=0) == text
    ids = AutoTokenizer.from_pretrained(tmp_path)(PROMPT, return_tensors="pt")["input_ids"]
    again = AutoModelForCausalLM.from_pretrained(tmp_path).generate(ids, max_new_tokens=20)
    assert again.equal(model.generate(ids, max_new_tokens=20))
    result = command("generate", tmp_path, "--prompt", PROMPT, "--max-bytes", "20", "--temperature", "0")
    assert result.returncode == 0, result.stderr
    assert text in result.stdout
    # A card that is there stays, unless there are facts.
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    model.save_pretrained(tmp_path, facts={"data": "other"})
    assert "- data: other" in (tmp_path / "README.md").read_text()


def test_everything_is_uploaded_in_one_commit(model: AUNetForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    assert model.push_to_hub("mine", private=True, commit_message="First", facts={"data": "a text"}) == "a commit"
    assert hub.calls == [
        {"private": True, "exist_ok": True},
        {"repo_id": "someone/mine", "commit_message": "First"},
    ]
    assert hub.files.keys() == FILES
    assert b"- data: a text" in hub.files["README.md"]


def test_a_card_on_the_hub_is_kept_unless_there_are_facts(
    model: AUNetForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(monkeypatch, "README.md")
    model.push_to_hub("mine")
    assert hub.files.keys() == FILES - {"README.md"}
    model.push_to_hub("mine", facts={"data": "a text"})
    assert hub.files.keys() == FILES


def test_saving_can_upload(model: AUNetForCausalLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = Hub(monkeypatch)
    model.save_pretrained(tmp_path / "mine", push_to_hub=True, commit_message="First")
    assert hub.calls[-1] == {"repo_id": "someone/mine", "commit_message": "First"}
    assert hub.files.keys() == FILES
