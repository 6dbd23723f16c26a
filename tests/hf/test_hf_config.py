"""One config.json for both sides, and one line for one that cannot be read."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config, pipeline

import aunet
from aunet.errors import AUNetError
from aunet.hf import AUNetConfig, AUNetForCausalLM
from tests.model.packs import small_config


def test_a_directory_of_ours_has_a_configuration_of_theirs(trained: Path) -> None:
    config = AutoConfig.from_pretrained(trained)
    assert isinstance(config, AUNetConfig)
    assert config.architecture == aunet.load(trained).config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id, config.vocab_size) == (256, 257, 258, 258)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = AUNetConfig(aunet=small_config(3))
    config.save_pretrained(tmp_path)
    loaded = AUNetConfig.from_pretrained(tmp_path)
    assert loaded.architecture == small_config(3)
    assert loaded.to_dict() == {**config.to_dict(), "_name_or_path": str(tmp_path)}
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["aunet"] == small_config(3).model_dump(mode="json")
    assert (values["model_type"], values["aunet_version"]) == ("aunet", aunet.__version__)
    assert not caplog.messages


def test_keys_of_other_tools_are_kept(trained: Path, tmp_path: Path) -> None:
    values = {**json.loads((trained / "config.json").read_text()), "note": "mine"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    AUNetConfig.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["note"] == "mine"


def refused(directory: Path, load: Any) -> str:
    """The one line."""
    with pytest.raises(AUNetError) as caught:
        load(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "load",
    [
        AutoConfig.from_pretrained,
        AutoModelForCausalLM.from_pretrained,
        AutoTokenizer.from_pretrained,
        AUNetForCausalLM.from_pretrained,
        lambda directory: pipeline("text-generation", model=str(directory)),
    ],
)
def test_a_configuration_that_cannot_be_read_is_one_line(load: Any, trained: Path, tmp_path: Path) -> None:
    good = json.loads((trained / "config.json").read_text())
    path = tmp_path / "config.json"
    for change, expected in [
        ({"aunet_version": "9.1.0", "aunet": {**good["aunet"], "attention": "new"}}, "written by aunet 9.1.0"),
        ({"aunet": {**good["aunet"], "splitter": "word1+word2"}}, "aunet: 2 stages need a splitter"),
        ({"aunet": {**good["aunet"], "vocab_size": 32000}}, "a model of bytes has 258 ids, not 32000"),
        ({"aunet": None}, "the architecture is missing"),
        ({"aunet": "word1"}, "the architecture is missing"),
    ]:
        path.write_text(json.dumps({**good, **change}))
        message = refused(tmp_path, load)
        assert expected in message
        assert str(path) in message


def test_our_own_side_names_the_other_version_too(trained: Path, tmp_path: Path) -> None:
    good = json.loads((trained / "config.json").read_text())
    changed = {**good, "aunet_version": "9.1.0", "aunet": {**good["aunet"], "attention": "new"}}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    message = refused(tmp_path, aunet.load)
    assert "unknown key attention" in message
    assert "written by aunet 9.1.0" in message


def test_a_newer_version_that_can_be_read_is_read(trained: Path, tmp_path: Path) -> None:
    values = {**json.loads((trained / "config.json").read_text()), "aunet_version": "9.1.0"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.architecture == AutoConfig.from_pretrained(trained).architecture
    assert config.aunet_version == aunet.__version__


def test_another_kind_of_model_is_one_line(tmp_path: Path) -> None:
    GPT2Config().save_pretrained(tmp_path)
    for load in (AUNetConfig.from_pretrained, AUNetForCausalLM.from_pretrained):
        assert "a model of type 'gpt2', not 'aunet'" in refused(tmp_path, load)


def test_a_configuration_without_an_architecture_is_one_line() -> None:
    assert "give aunet=" in refused(Path(), lambda _: AUNetConfig())
    assert "pad_token_id" in refused(Path(), lambda _: AUNetConfig(aunet=small_config(1), pad_token_id=0))
