"""A model directory for the hub: what belongs into it beside configuration and weights, and the upload."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from aunet.config import AUNetConfig as Architecture
from aunet.hf.tokenizer import AUNetTokenizer
from aunet.model.directory import CARD, save_card


def complete(directory: Path, architecture: Architecture, facts: Mapping[str, Any] | None) -> None:
    """Add the tokenizer and the model card where there is none; with `facts` the card is written anew."""
    if not (directory / "tokenizer_config.json").exists():
        AUNetTokenizer().save_pretrained(directory)
    save_card(architecture, directory, facts)


def push(
    directory: Path,
    repo_id: str,
    *,
    keep_card: bool = True,
    private: bool | None = None,
    token: bool | str | None = None,
    **commit: Any,
) -> Any:
    """Upload the files of a model directory in one commit, into a repository that is created if need be.

    `keep_card`: a model card that the repository has is left as it is. `commit`: `commit_message`,
    `commit_description`, `revision`, `create_pr`.
    """
    hub = HfApi(token=token)
    repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
    kept = [CARD] if keep_card and hub.file_exists(repo_id, CARD) else []
    return hub.upload_folder(repo_id=repo_id, folder_path=directory, ignore_patterns=kept, **commit)
