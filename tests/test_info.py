"""`aunet info`: its targets and its table."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from rich.console import Console

from aunet.config import AUNetConfig
from aunet.errors import AUNetError, ConfigError
from aunet.info import describe_target, measure_contraction, table
from aunet.model.aunet import AUNet
from aunet.model.directory import save_model
from aunet.presets import preset


def _shown(target: str, text: Path | None = None) -> str:
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(table(describe_target(target, text=text)))
    return capture.get()


def test_a_preset_with_overrides() -> None:
    whole = describe_target("aunet2-2m")
    less = describe_target("aunet2-2m", ["model.stages.1.layers=1", "data.seq_len=512"])
    assert less.parameters < whole.parameters
    assert (whole.seq_len, less.seq_len) == (2048, 512)


def test_a_model_directory_and_a_file_give_the_same(tmp_path: Path) -> None:
    model = AUNet(AUNetConfig.model_validate(preset("demo")["model"]))
    model.initialise(0)
    save_model(model, tmp_path / "model")
    (tmp_path / "run.yaml").write_text("preset: demo\n")
    from_model = describe_target(str(tmp_path / "model"), ["data.seq_len=2048"])
    assert from_model == describe_target(str(tmp_path / "run.yaml")) == describe_target("demo")


def test_contraction_is_measured_on_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = AUNetConfig.model_validate(preset("aunet3-2m")["model"])
    text = b"one two three four five six seven eight " * 20
    measured = measure_contraction(config, [text])
    assert measured == [1.0, pytest.approx(5.0), pytest.approx(10.0)]
    path = tmp_path / "text.txt"
    path.write_bytes(text)
    account = describe_target("aunet3-2m", text=path)
    assert [stage.measured_contraction for stage in account.stages] == measured
    assert "measured" in _shown("aunet3-2m", path)
    assert "measured" not in _shown("aunet3-2m")
    path.write_bytes(text + b"and so on" * 100)  # a corpus of many GB is not read to its end
    monkeypatch.setattr("aunet.data.lines.TEXT_DOCUMENT", len(text))
    monkeypatch.setattr("aunet.info.MEASURED", float(len(text)))
    measured_again = describe_target("aunet3-2m", text=path).stages
    assert [stage.measured_contraction for stage in measured_again] == measured


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_files_of_documents_are_measured_by_their_texts(tmp_path: Path, suffix: str) -> None:
    texts = ["one two three", 'ein Haus, ein "Baum"\n' * 40]
    path = tmp_path / f"texts{suffix}"
    lines = "".join(json.dumps({"body": text}) + "\n" for text in texts).encode()
    if suffix == ".parquet":
        pq.write_table(pa.table({"body": texts}), path)
    else:
        path.write_bytes({"gz": gzip.compress, "zst": zstandard.compress}.get(suffix[-3:].strip("."), bytes)(lines))
    account = describe_target("aunet2-2m", text=path, text_field="body")
    config = AUNetConfig.model_validate(preset("aunet2-2m")["model"])
    expected = measure_contraction(config, [text.encode() for text in texts])
    assert [stage.measured_contraction for stage in account.stages] == expected
    with pytest.raises(AUNetError, match=rf"texts{suffix}: no usable document; first problem: "):
        describe_target("aunet2-2m", text=path)


def test_a_run_has_the_rows_that_it_was_trained_on(tmp_path: Path) -> None:
    model = AUNet(AUNetConfig.model_validate(preset("demo")["model"]))
    save_model(model, tmp_path)
    assert describe_target(str(tmp_path)).seq_len == 8192
    for content, length in (('{"data": {"seq_len": 512}}', 512), ('{"data": []}', 8192), ("", 8192)):
        (tmp_path / "run.json").write_text(content)
        assert describe_target(str(tmp_path)).seq_len == length


def test_one_stage_has_one_byte_per_unit() -> None:
    config = AUNetConfig.model_validate(preset("transformer-bytes-1b")["model"])
    assert measure_contraction(config, [b"abc"]) == [1.0]


def test_a_preset_wins_over_a_directory_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert describe_target("demo").seq_len == 2048


def test_targets_that_cannot_be_described(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean aunet2-1b"):
        describe_target("aunet2-1bb")
    with pytest.raises(ConfigError, match=r"^preset demo: model\.splitter: unknown .* 'wrod1'; did you mean word1\?"):
        describe_target("demo", ["model.splitter=wrod1"])
    with pytest.raises(AUNetError, match=r"no config\.json there"):
        describe_target(str(tmp_path))
    with pytest.raises(AUNetError, match=r"gone\.txt: no such file"):
        describe_target("demo", text=tmp_path / "gone.txt")
    for name, content, reason in (
        ("empty.txt", b"", "empty file"),
        ("wide.txt", "wide".encode("utf-16"), "UTF-16 text; convert it"),
        ("text.md", b"text", "unknown kind of file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AUNetError, match=rf"{name}: {reason}"):
            describe_target("demo", text=tmp_path / name)


def test_the_table_names_every_part() -> None:
    shown = _shown("aunet3-1b")
    for word in ("embedding", "contract", "pool", "upsample", "expand", "trunk", "head", "2.5G parameters", "useful"):
        assert word in shown
    assert "tokens/unit" in _shown("transformer-bpe-1b")


def test_the_table_has_the_layers_of_both_ways() -> None:
    found = describe_target("aunet2-2m", ["model.stages.0.layers_up=2"])
    assert [stage.layers_up for stage in found.stages] == [2, None]
    assert f"{found.stages[0].layers} + 2" in list(table(found).columns[2].cells)
