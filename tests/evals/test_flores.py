"""FLORES: a directory of its form, prompts, scores of sacrebleu, intervals."""

from pathlib import Path

import pytest

from aunet.errors import AUNetError, ConfigError
from aunet.evals import flores
from aunet.evals.flores import FloresOptions
from tests.evals.fakes import Fake

sacrebleu = pytest.importorskip("sacrebleu")

ENGLISH = [
    "The river runs under the old bridge in the town.",
    "She walks to the house of her brother every morning.",
    "A dog and a cat were sleeping near the warm stove.",
    "Nobody knows when the next train is going to leave.",
    "They planted twelve trees behind the small school.",
    "It was raining when the ship came into the harbour.",
]
OTHERS = {
    "one_Latn": [text.upper() for text in ENGLISH],
    "two_Cyrl": [text.replace("the", "той").replace("a", "ая") for text in ENGLISH],
}


def write_flores(directory: Path) -> Path:
    """The form of the benchmark: a folder for each part, a file for each language, a line for each sentence."""
    for split in ("dev", "devtest"):
        (directory / split).mkdir(parents=True)
        for name, sentences in {"eng_Latn": ENGLISH, **OTHERS}.items():
            lines = [f"{split} {text}" for text in sentences]
            (directory / split / f"{name}.{split}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def translator(slips: bool = False) -> Fake:
    """Knows all sentences; with slips, forgets the last two words of half of them."""
    corpora = {"eng_Latn": ENGLISH, **OTHERS}
    number = {f"devtest {text}": i for sentences in corpora.values() for i, text in enumerate(sentences)}

    def write(prompt: str) -> str:
        *_, asked, cue = prompt.split("\n")
        i = number[asked.partition(": ")[2]]
        text = f"devtest {corpora[cue.removesuffix(':')][i]}"
        return f" {text if not slips or i % 2 else ' '.join(text.split()[:-2])}\n\neng_Latn: and on"

    return Fake(write)


def test_a_perfect_translator_has_100_in_both_directions(tmp_path: Path) -> None:
    write_flores(tmp_path / "flores")
    answers = translator()
    results = flores.run(answers, FloresOptions(tmp_path, fewshot=2))
    assert {r.task for r in results} == {
        *(f"flores_{a}" for a in ("one_Latn-eng_Latn", "two_Cyrl-eng_Latn", "eng_Latn-one_Latn", "eng_Latn-two_Cyrl")),
        "flores_to-eng_Latn",
        "flores_from-eng_Latn",
    }
    assert {r.metric for r in results} == {"bleu", "chrf", "chrf_by_sentence"}
    assert all((r.low, r.value, r.high) == pytest.approx((100, 100, 100)) for r in results)
    shown = answers.writings_asked[0].prompt.decode()
    assert shown.count("one_Latn: dev ") == shown.count("eng_Latn: dev ") == 2
    assert shown.endswith(f"one_Latn: devtest {OTHERS['one_Latn'][0]}\neng_Latn:")
    assert len({w.prompt.partition(b"devtest")[0] for w in answers.writings_asked[:6]}) == 1


def test_scores_are_those_of_sacrebleu(tmp_path: Path) -> None:
    results = flores.run(translator(slips=True), FloresOptions(write_flores(tmp_path), languages=("two_Cyrl",)))
    right = [f"devtest {text}" for text in ENGLISH]
    written = [text if i % 2 else " ".join(text.split()[:-2]) for i, text in enumerate(right)]
    found = {r.metric: r for r in results if r.task == "flores_two_Cyrl-eng_Latn"}
    assert found["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(written, [right]).score)
    assert found["chrf"].value == pytest.approx(sacrebleu.corpus_chrf(written, [right]).score)
    assert "tok:13a" in found["bleu"].settings["signature"]
    said = {"languages": ["two_Cyrl"], "pivot": "eng_Latn", "max_bytes": 512, "data": "local", "tokenizer": "13a"}
    assert said.items() <= found["bleu"].settings.items()
    for result in found.values():
        assert result.low < result.value < result.high <= 100
    examples = found["chrf_by_sentence"].examples
    assert sum(examples) / len(examples) == pytest.approx(found["chrf_by_sentence"].value)


def test_an_average_is_over_languages(tmp_path: Path) -> None:
    results = {
        (r.task, r.metric): r.value for r in flores.run(translator(slips=True), FloresOptions(write_flores(tmp_path)))
    }
    for metric in ("bleu", "chrf", "chrf_by_sentence"):
        parts = [results[f"flores_eng_Latn-{name}", metric] for name in OTHERS]
        assert results["flores_from-eng_Latn", metric] == pytest.approx(sum(parts) / 2)


def test_a_limit_and_no_examples(tmp_path: Path) -> None:
    answers = translator()
    results = flores.run(
        answers, FloresOptions(write_flores(tmp_path), limit=2, fewshot=0, languages=("one_Latn", "eng_Latn"))
    )
    assert {r.n for r in results} == {2}
    assert answers.writings_asked[0].prompt.decode().count("\n") == 1


def test_bad_directories_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(AUNetError, match="has no folder devtest"):
        flores.run(Fake(), FloresOptions(tmp_path))
    write_flores(tmp_path)
    with pytest.raises(AUNetError, match=r"one_Latin.dev is missing; there are one_Latn"):
        flores.run(Fake(), FloresOptions(tmp_path, languages=("one_Latin", "eng_Latn")))
    with pytest.raises(ConfigError, match="dev has 6 sentences, 7 cannot"):
        flores.run(Fake(), FloresOptions(tmp_path, fewshot=7))
    with pytest.raises(ConfigError, match="'14a' is none of sacrebleu's"):
        flores.run(Fake(), FloresOptions(tmp_path, tokenizer="14a"))
    with pytest.raises(ConfigError, match="name those to be read from the hub"):
        flores.run(Fake(), FloresOptions())
    with pytest.raises(ConfigError, match="none but eng_Latn"):
        flores.run(Fake(), FloresOptions(tmp_path, languages=("eng_Latn",)))
    path = tmp_path / "devtest" / "one_Latn.devtest"
    path.write_text(path.read_text() + "one more\n")
    with pytest.raises(AUNetError, match="devtest: one_Latn has 7 sentences and eng_Latn has 6"):
        flores.run(Fake(), FloresOptions(tmp_path))
    path.write_text("one\n\nthree\n")
    with pytest.raises(AUNetError, match="line 2: no sentence"):
        flores.run(Fake(), FloresOptions(tmp_path))
