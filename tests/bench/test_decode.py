"""`aunet bench decode` in real processes, on a small model."""

import json
import subprocess
from pathlib import Path

import pytest

from aunet.bench.decode import measure
from aunet.language_model import LanguageModel
from tests.model.packs import small_config, small_model
from tests.runs import aunet, here

KEYS = {
    *(f"{name}_batch_{batch}" for name in ("bytes_per_s", "first_byte_ms", "bytes_per_pass") for batch in (1, 8)),
    *(f"{name}_batch_{batch}_range" for name in ("bytes_per_s", "first_byte_ms") for batch in (1, 8)),
    *("peak_gflops", "peak_read_gb_per_s", "weight_mb", "native", "prompt_bytes", "new_bytes", "threads", "torch"),
    *("machine", "load_average"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "model"
    LanguageModel(small_model(small_config(2)), native=False).save(path)
    return path


def test_speeds_and_peaks_of_one_run(model: Path) -> None:
    result = aunet("bench", "decode", model, "--json", "--new-bytes", "30", "--repetitions", "2", "--threads", "1")
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert set(values) == KEYS
    for batch in (1, 8):
        low, high = values[f"bytes_per_s_batch_{batch}_range"]
        assert 0 < low <= values[f"bytes_per_s_batch_{batch}"] <= high
        assert values[f"bytes_per_pass_batch_{batch}"] == 1.0
    assert (values["prompt_bytes"], values["new_bytes"], values["threads"]) == (200, 30, 1)


def test_along_a_text_with_guesses(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The same words come again and again. " * 400)
    flags = ("--text", str(tmp_path / "text.txt"), "--guesses", "8", "--batch", "1", "--new-bytes", "100")
    result = here("bench", "decode", model, *flags, "--json", "--repetitions", "1")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["bytes_per_pass_batch_1"] > 2
    table = here("bench", "decode", model, *flags, "--repetitions", "1")
    assert "bytes a pass" in table.stdout


def test_lines_of_a_text_that_are_skipped_are_told(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text("no JSON\n" + '{"text": "The same words come again and again."}\n' * 40)
    flags = ("--text", path, "--batch", "1", "--new-bytes", "30", "--repetitions", "1")
    result = here("bench", "decode", model, *flags, "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith(f"skipped 1 x malformed JSON, first {path}:1: ")


def test_every_byte_is_written_and_counted() -> None:
    text = b"Once upon a time, there was. " * 2000
    (found,), peaks = measure(LanguageModel(small_model(small_config(2))), text, [3], 20, 25, 2)
    assert len(found.bytes_per_second) == len(found.first_byte) == 2
    assert min(peaks.gflops, peaks.gigabytes) > 0


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--text", "missing.txt"), "missing.txt"),
        (("--prompt-bytes", "99999999"), "lower --batch, --prompt-bytes or"),
        (("--batch", "0"), "--batch"),
        (("--weights", "fp4"), "weights"),
    ],
)
def test_bad_flags_are_one_line(model: Path, flags: tuple[str, ...], word: str) -> None:
    result = here("bench", "decode", model, *flags, "--json")
    assert_one_line(result, word)


def test_a_device_that_is_not_there_is_one_line_without_a_model_too(model: Path) -> None:
    for target in ([model], []):
        assert_one_line(here("bench", "decode", *target, "--device", "nonsense"), "device: nonsense")


def assert_one_line(result: subprocess.CompletedProcess[str], word: str) -> None:
    assert result.returncode != 0
    assert result.stderr.count("\n") == 1, result.stderr
    assert word in result.stderr
