"""Reading results of models and setting them side by side."""

import json
import os
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aunet.errors import AUNetError, ConfigError
from aunet.evals import cute, flores, statistics
from aunet.evals.compare import by_benchmark, compare, read_results
from aunet.evals.flores import FloresOptions
from aunet.evals.results import TaskResult
from aunet.evals.statistics import Interval
from aunet.report.comparison import write_comparison
from tests.evals.test_flores import translator, write_flores


def scored(task: str, scores: list[float], metric: str = "exact_match", **settings: Any) -> TaskResult:
    found = statistics.mean(scores)
    return TaskResult(task, metric, found.value, found.low, found.high, len(scores), 0, settings, tuple(scores))


def write_results(path: Path, *results: TaskResult) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"model": "any", "results": [result.to_json() for result in results]}))
    return path


def draws(share: float, seed: int, count: int = 200) -> list[float]:
    return (np.random.default_rng(seed).random(count) < share).astype(float).tolist()


def test_differences_are_paired_and_to_the_last_model(tmp_path: Path) -> None:
    worse, better = draws(0.3, 0), draws(0.6, 0)
    paths = [
        write_results(tmp_path / "a.json", scored("cute_spell", better), scored("noise_text", worse, "bits_per_byte")),
        write_results(tmp_path / "b.json", scored("cute_spell", worse)),
    ]
    spell, text = compare(read_results(paths))
    assert [one.name for one in read_results(paths)] == ["a", "b"]
    assert spell.differences == (statistics.difference(better, worse),)
    assert spell.differences[0].apart
    assert (text.results[1], text.differences) == (None, (None,))
    assert [(b, m, len(rows)) for b, m, rows in by_benchmark([spell, text])] == [
        ("cute", "exact_match", 1),
        ("noise", "bits_per_byte", 1),
    ]


def test_averages_of_cute_are_drawn_by_task(tmp_path: Path) -> None:
    """What is one better in a task and one worse in another is even, whichever examples are drawn."""
    paths = []
    for name, signs in (("a", (1.0, 0.0)), ("b", (0.0, 1.0))):
        scores = {part: [signs[i % 2]] * (50 + i) for i, part in enumerate(cute.AVERAGES["cute_character"])}
        parts = [scored(f"cute_{part}", of) for part, of in scores.items()]
        both = scored("cute_character", [score for of in scores.values() for score in of])
        paths.append(write_results(tmp_path / f"{name}.json", *parts, both))
    *parts, both = compare(read_results(paths))
    value = statistics.mean([one.differences[0].value for one in parts]).value
    assert both.differences == (Interval(value, value, value),)
    alone = write_results(tmp_path / "alone.json", scored("cute_character", [1.0, 0.0]))
    assert compare(read_results([alone, write_results(tmp_path / "c.json", scored("cute_character", [1.0, 1.0]))]))[
        0
    ].differences == (None,)


def test_bits_per_byte_are_compared_over_the_bytes_that_were_drawn(tmp_path: Path) -> None:
    sizes = (2048,) * 5 + (60,) * 45
    bits = np.array([1.5 + i % 3 for i in range(50)]) * sizes
    paths = []
    for name, less in (("a", 0.1), ("b", 0.0)):
        scores = (bits - less * np.array(sizes)) / np.mean(sizes)
        result = replace(scored("noise_text", scores.tolist(), "bits_per_byte"), sizes=sizes)
        paths.append(write_results(tmp_path / f"{name}.json", result))
    (row,) = compare(read_results(paths))
    assert astuple(row.differences[0]) == pytest.approx((-0.1, -0.1, -0.1))


def test_another_seed_has_drawn_other_examples(tmp_path: Path) -> None:
    one, other = scored("noise_text_drop_0.1", [1.0, 2.0]), replace(scored("noise_text_drop_0.1", [2.0, 3.0]), seed=1)
    paths = [write_results(tmp_path / f"{name}.json", result) for name, result in (("a", one), ("b", other))]
    assert compare(read_results(paths))[0].differences == (None,)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"sizes": [3]}, "sizes of cute are not"),
        ({"settings": {"chance": 10**400}}, "chance of cute is not from 0 to 1"),
    ],
)
def test_sizes_and_chances_that_are_none_are_refused(tmp_path: Path, field: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"results": [scored("cute", [1.0, 0.0]).to_json() | field]}))
    with pytest.raises(AUNetError, match=message):
        read_results([path])


def test_answers_taken_in_two_ways_are_two_scores(tmp_path: Path) -> None:
    """gsm8k has its exact match by the form that was asked for and by the last number."""
    paths = [
        write_results(
            tmp_path / f"{name}.json",
            scored("gsm8k", [strict, 0.0], filter="strict-match"),
            scored("gsm8k", [1.0, 1.0], filter="flexible-extract"),
        )
        for name, strict in (("a", 1.0), ("b", 0.0))
    ]
    rows = compare(read_results(paths))
    assert [(row.metric, row.results[0].value) for row in rows if row.results[0]] == [
        ("exact_match (strict-match)", 0.5),
        ("exact_match (flexible-extract)", 1.0),
    ]
    assert rows[0].differences == (statistics.difference([1.0, 0.0], [0.0, 0.0]),)


def test_other_examples_or_settings_have_no_difference(tmp_path: Path) -> None:
    paths = [
        write_results(tmp_path / "a.json", scored("one", [1.0, 0.0]), scored("two", [1.0, 0.0], limit=2)),
        write_results(tmp_path / "b.json", scored("one", [1.0]), scored("two", [1.0, 0.0], limit=3)),
    ]
    assert [row.differences for row in compare(read_results(paths))] == [(None,), (None,)]


@pytest.mark.parametrize(("hashes", "given"), [(("a", "a"), True), (("a", "b"), False), (("a", None), True)])
def test_examples_of_other_files_have_no_difference(
    tmp_path: Path, hashes: tuple[str, str | None], given: bool
) -> None:
    """Told by their hashes, which older results do not have."""
    paths = [
        write_results(
            tmp_path / f"{i}.json", scored("one", [1.0, 0.0], data="local", **({"data_hash": one} if one else {}))
        )
        for i, one in enumerate(hashes)
    ]
    (row,) = compare(read_results(paths))
    assert (row.differences != (None,)) == given


def write_translations(path: Path, slips: bool) -> Path:
    found = flores.run(translator(slips), FloresOptions(path.parent / "flores", fewshot=2))
    return write_results(path, *found)


def test_scores_of_whole_corpora_are_compared_by_the_same_sentences(tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    write_flores(tmp_path / "flores")
    models = read_results([write_translations(tmp_path / f"{slips}.json", slips) for slips in (False, True)])
    rows = {(row.task, row.metric): row for row in compare(models)}
    for task in ("flores_one_Latn-eng_Latn", "flores_to-eng_Latn", "flores_from-eng_Latn"):
        for metric in ("bleu", "chrf"):
            (found,) = rows[task, metric].differences
            ours, theirs = (model.results[task, metric] for model in models)
            assert found is not None
            assert found.value == pytest.approx(ours.value - theirs.value)
            # Ours is always 100, so the difference lies as far below it as theirs does.
            assert (100 - found.high, 100 - found.low) == pytest.approx((theirs.low, theirs.high))
            assert found.apart
    same = compare([models[1], models[1]])
    assert {(d.low, d.high) for row in same for d in row.differences if d} == {(0.0, 0.0)}


@pytest.mark.parametrize("counts", [[[1] * 9], [[1] * 10, [1] * 10], [[-1] * 10], [[1 << 60] * 10]])
def test_counts_that_are_none_are_refused(tmp_path: Path, counts: list[list[int]]) -> None:
    path = tmp_path / "a.json"
    score = {"task": "flores_a-b", "metric": "bleu", "value": 1, "low": 1, "high": 1, "n": 1, "seed": 0}
    path.write_text(json.dumps({"results": [{**score, "counts": counts}]}))
    with pytest.raises(AUNetError, match="counts of flores_a-b are not those of bleu"):
        read_results([path])


def test_files_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    paths = [write_results(tmp_path / name / "results.json", scored("t", [1.0])) for name in ("a", "b")]
    assert [one.name for one in read_results(paths)] == [str(path.with_suffix("")) for path in paths]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "no list 'results'"),
        ('{"results": [{"task": "t"}]}', r"results\.0\.metric: Field required"),
        ('{"results": [{"task": 1}]}', r"results\.0\.task"),
    ],
)
def test_other_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(AUNetError, match=message) as found:
        read_results([path])
    assert len(str(found.value).splitlines()) == 1


def test_scores_are_finite_and_files_are_named_once(tmp_path: Path) -> None:
    path = write_results(tmp_path / "a.json", TaskResult("t", "m", float("nan"), 0, 0, 1, 0))
    with pytest.raises(AUNetError, match="scores of t are not finite"):
        read_results([path])
    with pytest.raises(ConfigError, match="named twice"):
        read_results([path, path])
    with pytest.raises(AUNetError, match="cannot be read"):
        read_results([tmp_path / "none.json"])


def test_files_without_a_result_are_one_line(tmp_path: Path) -> None:
    paths = [write_results(tmp_path / f"{name}.json") for name in "ab"]
    with pytest.raises(AUNetError, match="compare: no file has a result"):
        write_comparison(read_results(paths), tmp_path / "out")


def test_any_name_of_a_file_will_do(tmp_path: Path) -> None:
    """Also one that begins with an underscore, which matplotlib hides, one with a bar, and one that is not UTF-8."""
    pytest.importorskip("matplotlib")
    names = ["_mine.json", "a|b.json", "x.json", "x.txt", os.fsdecode(b"caf\xe9.json")]
    found = read_results([write_results(tmp_path / name, scored("cute", [1.0, 0.0])) for name in names])
    assert len({one.name for one in found}) == 5
    *_, figure = write_comparison(found, tmp_path / "out")
    markdown = (tmp_path / "out" / "compare.md").read_text()
    assert all(one.name in figure.read_text() for one in found)
    (header,) = [line for line in markdown.splitlines() if line.startswith("| task ")]
    (rule,) = [line for line in markdown.splitlines() if line.startswith("| --- ")]
    assert header.replace("\\|", "").count("|") == rule.count("|")
