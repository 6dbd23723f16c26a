"""Models over tokens in real processes: tokenizer, training, resumption, evaluation, generation."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from aunet.errors import AUNetError
from aunet.language_model import LanguageModel
from aunet.model.flops import flops_per_byte
from tests.runs import aunet, here, losses, metrics, refused, write_config, write_text


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with texts, a tokenizer, a run file over it and the finished run."""
    directory = tmp_path_factory.mktemp("tokens")
    path = write_config(directory, steps=8)
    made = here(
        *("tokenizer", "train", directory / "train.jsonl", "--vocab-size", "300"),
        *("--out", directory / "tokenizer.json", "--json"),
    )
    assert made.returncode == 0, made.stderr
    values = json.loads(made.stdout)
    assert values["tokens"] == 300
    assert values["documents"] == 300
    assert values["bytes_per_token"] > 2
    config = yaml.safe_load(path.read_text())
    config["model"] = {
        "tokenizer": str(directory / "tokenizer.json"),
        "tied": True,
        "stages": [{"dim": 16, "layers": 1, "head_dim": 8}],
    }
    config["data"]["seq_len"] = 64
    config["train"]["batch_bytes"] = 256
    path.write_text(yaml.safe_dump(config))
    result = aunet("train", path)
    assert result.returncode == 0, result.stderr
    return directory


@pytest.mark.parametrize("most", ["0", "-1", "nan"])
def test_a_tokenizer_of_no_text_is_refused_before_it_is_written(tmp_path: Path, most: str) -> None:
    texts = write_text(tmp_path / "train.jsonl", 3)
    out = tmp_path / "tokenizer.json"
    flags = ("--vocab-size", "300", "--max-bytes", most, "--out", out)
    assert refused("tokenizer", "train", texts, *flags) == f"--max-bytes: {most} is not above 0"
    assert not out.exists()


def test_metrics_count_bytes_and_tokens(work: Path) -> None:
    lines = [line for line in metrics(work / "out") if "loss" in line]
    model = LanguageModel.load(work / "out")
    per_token = flops_per_byte(model.config, 64)
    for line in lines:
        assert line["positions"] <= 256 + 300  # at most so many tokens, and a BOS for each document
        assert 1.5 < line["bytes"] / line["units"] < 5
        assert line["paper_flops"] == pytest.approx(line["units"] * per_token)
        nats = line["loss"] * line["positions"]
        assert line["train_bits_per_byte"] == pytest.approx(nats / 0.6931471805599453 / line["step_bytes"])
    assert 0 < metrics(work / "out")[-1]["valid_bits_per_byte"] < 8


def test_a_run_that_was_stopped_resumes_bit_for_bit(work: Path, tmp_path: Path) -> None:
    config = work / "config.yaml"
    shutil.copytree(work / "out", tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "step-8")
    # The tokenizer may have moved meanwhile.
    shutil.copy(work / "tokenizer.json", tmp_path / "moved.json")
    settings = [f"train.out={tmp_path / 'out'}", f"model.tokenizer={tmp_path / 'moved.json'}"]
    result = here("train", config, *settings)
    assert result.returncode == 0, result.stderr
    assert "resuming after step 4" in result.stdout
    assert losses(tmp_path / "out") == losses(work / "out")
    # Another one of the same size is refused, and leaves the model as it was.
    values = json.loads((work / "tokenizer.json").read_text())
    values["model"]["merges"] = values["model"]["merges"][:-1]
    (tmp_path / "other.json").write_text(json.dumps(values))
    result = here("train", config, settings[0], f"model.tokenizer={tmp_path / 'other.json'}", "train.steps=9")
    assert result.returncode == 1
    assert "cannot resume: model.tokenizer is" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (tmp_path / "out" / "tokenizer.json").read_text() == (work / "tokenizer.json").read_text()


def test_a_model_directory_carries_its_tokenizer(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "out", tmp_path / "moved", ignore=shutil.ignore_patterns("checkpoints"))
    assert json.loads((tmp_path / "moved" / "config.json").read_text())["aunet"]["tokenizer"] == "tokenizer.json"
    model = LanguageModel.load(tmp_path / "moved")
    assert model.config.tokenizer == str(tmp_path / "moved" / "tokenizer.json")
    model.save(tmp_path / "saved")
    shutil.rmtree(tmp_path / "moved")
    again, text = LanguageModel.load(tmp_path / "saved"), "the old dog runs under the house"
    assert again.bits(text).tolist() == model.bits(text).tolist()
    assert again.generate("the", max_bytes=20, seed=1) == model.generate("the", max_bytes=20, seed=1)


def test_eval_and_validation_agree(work: Path) -> None:
    result = here("eval", work / "out", work / "valid.jsonl", "--json")
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert values["bits_per_byte"] == pytest.approx(metrics(work / "out")[-1]["valid_bits_per_byte"], abs=1e-4)
    texts = [json.loads(line)["text"] for line in (work / "valid.jsonl").read_text().splitlines()]
    assert values["bytes"] == sum(len(text.encode()) for text in texts)


def test_generate_writes_bytes(work: Path) -> None:
    arguments = ("generate", work / "out", "--prompt", "the old", "--max-bytes", "41", "--seed", "3")
    shown, values = here(*arguments), here(*arguments, "--json")
    assert shown.returncode == values.returncode == 0, shown.stderr + values.stderr
    found = json.loads(values.stdout)
    assert shown.stdout == f"the old{found['text']}\n"
    assert len(bytes.fromhex(found["bytes_hex"])) <= 41


def test_a_new_run_starts_from_its_weights(work: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((work / "config.yaml").read_text())
    del values["model"]
    values["train"] |= {"init_from": str(work / "out"), "out": str(tmp_path / "tuned"), "steps": 1}
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(values))
    result = here("train", tmp_path / "tune.yaml")
    assert result.returncode == 0, result.stderr
    assert losses(tmp_path / "tuned")[0][1] < losses(work / "out")[0][1] - 0.1
    assert (tmp_path / "tuned" / "tokenizer.json").read_bytes() == (work / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["serve", "OUT", "--port", "0"], 1, "serve: is for models over bytes"),
        (["inspect", "OUT", "some text"], 1, "inspect: is for models over bytes"),
        (["bench", "decode", "OUT"], 1, "bench decode: is for models over bytes"),
        (["train", "CONFIG", "model.vocab_size=400"], 2, "has 300 tokens, which makes 302 ids"),
        (["train", "CONFIG", "model.splitter=word1"], 2, "a model over tokens has one stage and no splitter"),
        (["train", "CONFIG", "model.tokenizer=none.json"], 2, "none.json: cannot be read (No such file or directory)"),
        (["train", "CONFIG", "model.tokenizer=''", "model.vocab_size=302"], 2, "model.tokenizer: bytes have 258 ids"),
        (["tokenizer", "train", "CONFIG", "--vocab-size", "300", "--out", "t.json"], 1, "unknown kind of file"),
        (["tokenizer", "train", "TEXT", "--vocab-size", "99", "--out", "t.json"], 2, "--vocab-size: 99 is below 256"),
        (["tokenizer", "train", "TEXT", "--vocab-size", "300"], 1, "--out: tokenizer.json is there, and models may be"),
        (["tokenizer", "train", "TEXT", "--vocab-size", "300", "--out", "train.jsonl/t.json"], 1, "--out: train.jsonl"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    work: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, part: str
) -> None:
    monkeypatch.chdir(work)
    places = {"OUT": work / "out", "CONFIG": work / "config.yaml", "TEXT": work / "train.jsonl"}
    result = here(*(places.get(word, word) for word in arguments))
    assert result.returncode == code, result.stderr
    assert part in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_info_counts_tokens(work: Path) -> None:
    for target in ("out", "config.yaml"):
        result = here("info", work / target, "--json")
        assert result.returncode == 0, result.stderr
        values = json.loads(result.stdout)
        assert values["unit"] == "token"
        assert [part["name"] for part in values["stages"][0]["parts"]] == ["embedding", "trunk", "head"]
        assert values["bytes_per_token"] is None
    (work / "text.txt").write_text("the old dog runs under the house " * 20)
    shown = here("info", work / "out", "--text", work / "text.txt", "--json")
    tokens = len(LanguageModel.load(work / "out").vocabulary.encode((work / "text.txt").read_bytes()))
    assert json.loads(shown.stdout)["bytes_per_token"] == pytest.approx(660 / tokens)
    assert "bytes per token on the text" in here("info", work / "out", "--text", work / "text.txt").stdout


def test_what_is_made_of_bytes_is_refused(work: Path) -> None:
    with pytest.raises(AUNetError, match="encode: is for models over bytes"):
        LanguageModel.load(work / "out").encode("a text")
