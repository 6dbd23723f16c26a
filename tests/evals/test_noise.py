"""Character noise and robustness."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aunet.errors import AUNetError, ConfigError
from aunet.evals import noise
from aunet.evals.noise import HOMOGLYPHS, KINDS, NoiseOptions, noisy, places, robustness
from aunet.evals.questions import Question
from aunet.evals.results import data_hash
from tests.evals.fakes import Fake
from tests.evals.test_cute import write_benchmark

TEXTS = st.text(max_size=60)
RATES = st.floats(0, 1)
SEEDS = st.integers(0, 1 << 30)
EVERY = st.sampled_from(list(KINDS))
FEW = NoiseOptions(kinds=("drop",), rates=(0.1,))


@given(TEXTS, EVERY, SEEDS)
def test_no_rate_is_no_noise(text: str, kind: str, seed: int) -> None:
    assert noisy(text, kind, 0.0, seed) == text


@given(TEXTS, EVERY, RATES, SEEDS)
def test_noise_is_text_and_the_same_for_the_same_seed(text: str, kind: str, rate: float, seed: int) -> None:
    found = noisy(text, kind, rate, seed)
    assert found.encode().decode() == found
    assert noisy(text, kind, rate, seed) == found
    assert [c for c in found if c in "\r\n"] == [c for c in text if c in "\r\n"]


@given(TEXTS, RATES, SEEDS)
def test_each_kind_does_what_it_says(text: str, rate: float, seed: int) -> None:
    assert sorted(noisy(text, "swap", rate, seed)) == sorted(text)
    kept = iter(text)
    assert all(c in kept for c in noisy(text, "drop", rate, seed))
    kept = iter(noisy(text, "repeat", rate, seed))
    assert all(c in kept for c in text)
    assert noisy(text, "case", 1.0, seed).casefold() == text.swapcase().casefold()


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_edits_as_the_rate_promises(kind: str) -> None:
    text, rate = "A Quiet afternoon, naïvely\nspent. " * 60, 0.2
    expected = rate * len(places(text, kind))
    deviation = (expected * (1 - rate)) ** 0.5
    edits = {
        "drop": lambda found: len(text) - len(found),
        "repeat": lambda found: len(found) - len(text),
        "case": lambda found: sum(a != b for a, b in zip(text, found, strict=True)),
        "homoglyph": lambda found: sum(c in HOMOGLYPHS.values() for c in found),
    }
    for seed in range(3):
        found = noisy(text, kind, rate, seed)
        if kind in edits:
            assert abs(edits[kind](found) - expected) < 4 * deviation
        else:
            assert found != text


def test_characters_of_several_code_points_stay_whole() -> None:
    family, accented = "👨‍👩‍👧", "e\u0301"
    assert noisy(f"{family}{accented}", "swap", 1.0, 0) == f"{accented}{family}"
    assert noisy(family + accented, "repeat", 1.0, 0) == family * 2 + accented * 2
    assert places(family + accented, "drop") == [0, 1]


def test_lookalikes_are_other_letters() -> None:
    assert all(a != b and a.isascii() and not b.isascii() for a, b in HOMOGLYPHS.items())
    assert len(set(HOMOGLYPHS.values())) == len(HOMOGLYPHS)
    assert noisy("cocoa", "homoglyph", 1.0, 0).encode() != b"cocoa"


def test_what_is_kept_of_bits_per_byte() -> None:
    """A reader who pays one bit for a byte, and three for one that no clean text has."""
    answers = Fake(bits=lambda prompt, text: sum(1 if c.islower() or c == " " else 3 for c in text))
    documents = ["a quiet afternoon", "spent well", "again"]
    options = NoiseOptions(kinds=("case",), rates=(0.0, 1.0))
    clean, same, same_kept, upper, upper_kept = robustness(answers, documents, [], options)
    assert (clean.task, clean.value) == ("noise_text", 1.0)
    assert (same.value, same_kept.value) == (1.0, 1.0)
    letters = sum(c != " " for text in documents for c in text)
    assert upper.value == pytest.approx((3 * letters + 3) / (letters + 3))
    assert upper_kept.value == pytest.approx(1 / upper.value)
    assert upper_kept.low <= upper_kept.value <= upper_kept.high
    assert sum(upper.examples) / 3 == pytest.approx(upper.value)
    assert upper.settings["rate"] == 1.0


def test_what_is_kept_of_accuracy() -> None:
    """A reader who finds the right choice where the prompt is lower-case; cues and choices are as they were."""

    def bits(prompt: str, text: str) -> float:
        assert prompt.endswith(" Answer: ")
        assert text in ("good", "evil")
        return 1.0 if (text == "good") == prompt.startswith("q") else 2.0

    questions = [Question(f"question {i}", ("good", "evil"), 0, " Answer: ") for i in range(6)]
    clean, noised, kept = robustness(Fake(bits=bits), [], questions, NoiseOptions(kinds=("case",), rates=(1.0,)))
    assert (clean.value, noised.value, kept.value) == (1.0, 0.0, 0.0)
    assert noised.examples == (0.0,) * 6


def test_of_nothing_right_nothing_is_kept() -> None:
    questions = [Question("q", ("a", "b"), 0)]
    found = robustness(Fake(), [], questions, NoiseOptions(kinds=("drop",)))
    assert [result.metric for result in found] == ["accuracy", "accuracy"]


def test_texts_and_choices_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "a.txt").write_text("one é document that is cut")
    write_benchmark(tmp_path / "cute")
    answers = Fake(bits=lambda prompt, text: float(len(text)))
    found = noise.run(answers, NoiseOptions(tmp_path, kinds=("drop", "swap"), limit=3, max_bytes=5))
    assert answers.likelihoods_asked[0].text == b"one "
    assert {result.task for result in found} == {
        *(f"noise_{what}{kind}" for what in ("text", "choice") for kind in ("", "_drop_0.1", "_swap_0.1"))
    }
    swapped = next(result.settings for result in found if result.task == "noise_text_swap_0.1")
    common = {"limit": 3, "data": "local", "max_bytes": 5, "text_field": "text"}
    assert swapped == {**common, "kind": "swap", "rate": 0.1, "data_hash": data_hash(["one "])}


def test_results_tell_other_texts_apart() -> None:
    answers = Fake(bits=lambda prompt, text: float(len(text)))
    first, again, other = (
        [one.settings["data_hash"] for one in robustness(answers, [text], [Question(text, ("a", "b"), 0)], FEW)]
        for text in ("one text", "one text", "another")
    )
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_bad_options_are_one_line() -> None:
    with pytest.raises(ConfigError, match="'shuffle' is not a kind; known: swap, drop"):
        noisy("a", "shuffle", 0.1, 0)
    with pytest.raises(ConfigError, match=r"from 0 to 1, 1.5 does not"):
        NoiseOptions(rates=(1.5,))
    with pytest.raises(ConfigError, match="noise needs --data-dir"):
        noise.run(Fake(), NoiseOptions())


def test_a_directory_without_texts_and_questions_is_told_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text beside the folder")
    with pytest.raises(AUNetError, match="has neither texts in a folder noise nor the files of CUTE"):
        noise.run(Fake(), NoiseOptions(tmp_path))


def test_texts_without_a_character_are_named(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "a.txt").write_text("é", encoding="utf-8")
    with pytest.raises(AUNetError, match=r"/noise: no text has a UTF-8 character in its first 1 bytes"):
        noise.run(Fake(), NoiseOptions(tmp_path, max_bytes=1))


def test_text_that_is_not_utf8_is_named_and_a_cut_character_left_out(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    text = tmp_path / "noise" / "a.txt"
    text.write_bytes("déjà".encode())
    options = NoiseOptions(data_dir=tmp_path, kinds=("case",), max_bytes=5)
    assert [one.sizes for one in noise.run(Fake(), options) if one.metric == "bits_per_byte"] == [(4,), (4,)]
    text.write_bytes("déjà vu".encode("latin-1"))
    with pytest.raises(AUNetError, match=r"a\.txt is not UTF-8"):
        noise.run(Fake(), options)


def test_what_cannot_be_read_is_counted_up_to_the_last_document(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "a.jsonl").write_text('{"text": "one"}\nno JSON\n{"text": "two"}\n{"text": "three"}\nnone\n')
    options = NoiseOptions(data_dir=tmp_path, kinds=("case",), limit=2)
    noise.run(Fake(bits=lambda prompt, text: 1.0), options)
    (line,) = options.problems.lines()
    assert line.startswith(f"skipped 1 x malformed JSON, first {tmp_path}/noise/a.jsonl:2: ")


def test_noise_that_leaves_nothing_has_no_score() -> None:
    options = NoiseOptions(kinds=("drop", "case"), rates=(1.0,))
    names = [one.task for one in robustness(Fake(), ["abc"], [], options)]
    assert names == ["noise_text", "noise_text_case_1", "noise_text_case_1"]
