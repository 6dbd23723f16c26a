import gzip
import lzma
import random
import subprocess

import pytest

from aunet.errors import AUNetError
from aunet.evals import compressors

WORDS = [
    "the",
    "a",
    "of",
    "pool",
    "stage",
    "byte",
    "unit",
    "word",
    "model",
    "text",
    "reads",
    "holds",
    "never",
    "always",
]


def _text(seed: int, words: int = 4000) -> bytes:
    source = random.Random(seed)
    return " ".join(source.choice(WORDS) for _ in range(words)).encode()


def _noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def test_gzip_and_xz_are_what_the_commands_give() -> None:
    data = _text(0)
    assert compressors.gzip_bits_per_byte(data) == 8 * len(gzip.compress(data, 9)) / len(data)
    plain = 8 * len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)) / len(data)
    assert compressors.xz_bits_per_byte(data) == plain


@pytest.mark.parametrize("command", [["gzip", "-9", "-n"], ["xz", "-9e"]])
def test_the_command_line_tools_agree(command: list[str]) -> None:
    data = _text(1)
    try:
        size = len(subprocess.run([*command, "-c"], input=data, capture_output=True, check=True).stdout)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    measured = {"gzip": compressors.gzip_bits_per_byte, "xz": compressors.xz_bits_per_byte}[command[0]](data)
    assert measured == pytest.approx(8 * size / len(data), rel=0.01)


def test_noise_costs_eight_bits_and_its_container() -> None:
    data = _noise(0, 20_000)
    for measure in (compressors.gzip_bits_per_byte, compressors.xz_bits_per_byte):
        assert 8.0 < measure(data) < 8.1


def test_related_text_is_cheaper_after_the_training_text() -> None:
    train, data = _text(0), _text(1, 500)
    assert compressors.xz_conditional(train, data) < 0.9 * compressors.xz_bits_per_byte(data)


def test_repetition_is_cheap_however_far_back_it_lies() -> None:
    """Noise cannot be predicted, only referred to: here over a megabyte of other noise."""
    data = _noise(1, 5000)
    assert compressors.xz_conditional(data + _noise(2, 1 << 20), data) < 2


def test_unrelated_noise_gains_nothing() -> None:
    assert compressors.xz_conditional(_noise(3, 10_000), _noise(4, 10_000)) == pytest.approx(8, rel=0.01)


def test_without_training_text_the_container_cancels_out() -> None:
    data = _text(2)
    assert 0 < compressors.xz_bits_per_byte(data) - compressors.xz_conditional(b"", data) < 8 * 64 / len(data)


@pytest.mark.parametrize(
    "measure",
    [
        compressors.gzip_bits_per_byte,
        compressors.xz_bits_per_byte,
        lambda data: compressors.xz_conditional(b"text", data),
    ],
)
def test_no_bytes_are_refused(measure: object) -> None:
    with pytest.raises(AUNetError, match="no byte"):
        measure(b"")  # type: ignore[operator]
