"""Tasks on local files in the forms in which their makers give them out."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from aunet.errors import AUNetError
from aunet.evals import tasks as tasks_module
from aunet.evals.answers import Answers, Continuation, Likelihood
from aunet.evals.cache import model_digest
from aunet.evals.options import TaskOptions
from aunet.evals.results import TaskResult
from aunet.evals.tasks import OwnTask, run_tasks
from aunet.language_model import LanguageModel
from tests.evals.fakes import Knows
from tests.evals.task_files import CHOICES, COUNT, answers, hellaswag, lines, piqa, translated
from tests.model.packs import small_config, small_model
from tests.runs import here


@pytest.mark.parametrize("name", CHOICES)
def test_data_in_its_makers_form_is_read(name: str, tmp_path: Path) -> None:
    CHOICES[name](tmp_path)
    knows = Knows()
    results = run_tasks([name], knows, TaskOptions(tmp_path, fewshot=0, seed=3))
    by_metric = {one.metric: one for one in results}
    assert results[0].metric == "acc_chars"
    for metric in ("acc_chars", "acc"):
        one = by_metric[metric]
        assert (one.task, one.value, one.low, one.high, one.n, one.seed) == (name, 1.0, 1.0, 1.0, COUNT, 3)
        assert one.examples == (1.0,) * COUNT
    assert by_metric["acc"].settings["fewshot"] == 0
    assert by_metric["acc"].settings["data"] == "local"
    assert all(one.prompt and one.text for one in knows.asked)


def test_boolq(tmp_path: Path) -> None:
    rows = [{"question": "is it", "title": "t", "answer": i != 1, "passage": f"It is {i}."} for i in range(4)]
    lines(tmp_path / "boolq/dev.jsonl", rows)

    class Agrees(Knows):
        def right(self, one: Continuation) -> bool:
            return one.text == b" yes"

    (chars, acc) = run_tasks(["boolq"], Agrees(), TaskOptions(tmp_path))
    assert chars.examples == acc.examples == (1.0, 0.0, 1.0, 1.0)
    assert (acc.value, acc.n) == (0.75, 4)
    assert acc.low < acc.value < acc.high
    hashes = {chars.settings["data_hash"], acc.settings["data_hash"]}
    for changed in ({"passage": "It was."}, {"answer": False}, {}):
        lines(tmp_path / "boolq/dev.jsonl", [{**rows[0], **changed}, *rows[1:]])
        hashes.add(run_tasks(["boolq"], Agrees(), TaskOptions(tmp_path))[0].settings["data_hash"])
    assert len(hashes) == 3  # another text or answer is another task, the same file the same one


def test_characters_decide_where_the_likelihood_and_the_bytes_decide_otherwise(tmp_path: Path) -> None:
    choices = {"text": ["ab", "long answer", "ééé"], "label": ["A", "B", "C"]}
    rows = [{"question": "Which?", "choices": choices, "answerKey": key} for key in "ABC"]
    lines(tmp_path / "arc_easy/test.jsonl", rows)

    class Given(Knows):
        """Bits: 4, 11, 4.5; per character: 2, 1, 1.5; per byte: 2, 1, 0.75."""

        def likelihoods(self, asked: Sequence[Continuation], progress: Any = None) -> list[Likelihood]:
            bits = {b" ab": 4.0, b" long answer": 11.0, " ééé".encode(): 4.5}
            return [Likelihood(bits[one.text], False) for one in asked]

    found = {one.metric: one.examples for one in run_tasks(["arc_easy"], Given(), TaskOptions(tmp_path))}
    assert found == {"acc_chars": (0.0, 1.0, 0.0), "acc": (1.0, 0.0, 0.0), "acc_norm": (0.0, 1.0, 0.0)}


def test_where_several_answers_are_right_none_is_chosen_by_characters(tmp_path: Path) -> None:
    targets = {"choices": ["right", "wrong", "right too"], "labels": [1, 0, 1]}
    lines(tmp_path / "truthfulqa_mc2/validation.jsonl", [{"question": "Which?", "mc2_targets": targets}])
    (found,) = run_tasks(["truthfulqa_mc2"], Knows(), TaskOptions(tmp_path))
    assert (found.metric, found.value) == ("acc", pytest.approx(1.0))


@pytest.mark.parametrize("name", ["nq_open", "triviaqa"])
def test_short_answers(name: str, tmp_path: Path) -> None:
    if name == "nq_open":
        lines(tmp_path / "nq_open/NQ-open.dev.jsonl", [{"question": "who", "answer": ["right"]}] * 2)
    else:
        answer = {"Value": "Right", "Aliases": ["Right", "Correct"], "NormalizedAliases": []}
        path = tmp_path / "triviaqa/unfiltered-web-dev.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"Data": [{"Question": "who", "Answer": answer, "QuestionId": "1"}] * 2}))
    knows = Knows()
    (one,) = run_tasks([name], knows, TaskOptions(tmp_path))
    assert (one.metric, one.value, one.n) == ("exact_match", 1.0, 2)
    assert knows.written[0].stop == (b"\n", b".", b",")


def test_few_shots_from_the_scored_split_leave_the_question_out(tmp_path: Path) -> None:
    hellaswag(tmp_path)
    knows = Knows()
    found = run_tasks(["hellaswag"], knows, TaskOptions(tmp_path, fewshot=3))
    assert found[0].settings["fewshot_split"] == "validation"
    for one in knows.asked:
        question = one.prompt.split(b"\n\n")[-1]
        assert one.prompt.count(question) == 1
        assert len(one.prompt.split(b"\n\n")) == 4


def test_all_examples_of_a_split_of_their_own_may_be_shown(tmp_path: Path) -> None:
    """MMLU has five for a subject, and is asked with five."""
    for split, rows in (("dev", 5), ("test", 2)):
        path = tmp_path / f"mmlu/{split}/anatomy_{split}.csv"
        path.parent.mkdir(parents=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([f"{split} {i}?", *answers(i)[0], "A"] for i in range(rows))
    knows = Knows()
    run_tasks(["mmlu_anatomy"], knows, TaskOptions(tmp_path, fewshot=5))
    assert len(knows.asked) == 2 * 4
    assert all(one.prompt.count(b"dev ") == 5 for one in knows.asked)
    with pytest.raises(AUNetError, match="6 examples in the prompt need 6 and there are 5"):
        run_tasks(["mmlu_anatomy"], Knows(), TaskOptions(tmp_path, fewshot=6))


@pytest.mark.parametrize("row", ["q,1,2,3,4,", "q,1,2,3,4", "q,1,2,3,4,E"])
def test_a_row_that_is_none_of_the_task_is_named(tmp_path: Path, row: str) -> None:
    path = tmp_path / "mmlu/test/anatomy_test.csv"
    path.parent.mkdir(parents=True)
    path.write_text(f"q,1,2,3,4,A\n\n{row}\n")
    with pytest.raises(AUNetError, match=r"anatomy_test\.csv: record 2 is none of this task"):
        run_tasks(["mmlu_anatomy"], Knows(), TaskOptions(tmp_path, fewshot=0))


def test_gsm8k_as_it_is_given_out(shared: Callable[[str], Path]) -> None:
    directory = shared("data/gsm8k")
    knows = Knows(b" It is 18.\n#### 18")
    found = run_tasks(["gsm8k"], knows, TaskOptions(directory.parent, limit=3, fewshot=2))
    assert [(one.metric, one.settings["filter"], one.examples) for one in found] == [
        ("exact_match", "strict-match", (1.0, 0.0, 0.0)),
        ("exact_match", "flexible-extract", (1.0, 0.0, 0.0)),
    ]
    assert len(knows.written) == 3
    assert all(one.prompt.count(b"Question:") == 3 and one.max_bytes == 1024 for one in knows.written)
    again = run_tasks(["gsm8k"], Knows(), TaskOptions(directory, limit=3, fewshot=2))
    assert [one.n for one in again] == [3, 3]


def test_a_group_is_the_mean_over_the_examples_of_its_tasks(tmp_path: Path) -> None:
    from aunet.evals import harness_tasks

    index = harness_tasks._manager().task_index
    subjects = sorted(index["mmlu_social_sciences_tasks"].tags)
    for number, subject in enumerate(subjects):
        name = subject.removeprefix("mmlu_")
        path = tmp_path / f"mmlu/test/{name}_test.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            for i in range(1 + number % 2):
                csv.writer(file).writerow([f"{name} {i}?", *answers(i)[0], "ABCD"[number % 3]])
    found = run_tasks(["mmlu_social_sciences"], Knows(), TaskOptions(tmp_path, fewshot=0))
    (group,) = [one for one in found if one.task == "mmlu_social_sciences" and one.metric == "acc"]
    members = [one for one in found if one.task in subjects and one.metric == "acc"]
    assert len(members) == len(subjects) == len(group.settings["tasks"])
    assert len({one.settings["data_hash"] for one in [group, *members]}) == 1 + len(members)
    scores = [score for one in members for score in one.examples]
    assert sorted(group.examples) == sorted(scores)
    assert group.value == pytest.approx(sum(scores) / len(scores))
    assert 0 < group.low < group.value < group.high < 1


def test_mmlu_in_other_languages(tmp_path: Path) -> None:
    lines(tmp_path / "m_mmlu/data/fr/train.jsonl", translated(6))
    lines(tmp_path / "m_mmlu/data/fr/test.jsonl", translated(3))
    (tmp_path / "m_mmlu/de").mkdir(parents=True)
    table = pyarrow.Table.from_pylist(translated(5))
    pyarrow.parquet.write_table(table, tmp_path / "m_mmlu/de/test-00000-of-00001.parquet")
    names = ["m_mmlu_fr", "m_mmlu_de"]
    found = run_tasks(names, Knows(), TaskOptions(tmp_path))
    assert [(one.task, one.metric, one.value, one.n) for one in found] == [
        (task, metric, 1.0, n) for task, n in (("m_mmlu_fr", 3), ("m_mmlu_de", 5)) for metric in ("acc_chars", "acc")
    ]
    knows = Knows()
    found = run_tasks(names, knows, TaskOptions(tmp_path, fewshot=2))
    assert [one.settings["fewshot_split"] for one in found[::2]] == ["train", "test"]
    assert all(one.prompt.count(b"Laquelle") == 3 for one in knows.asked)


def test_a_group_of_another_language_is_the_mean_over_its_examples(tmp_path: Path) -> None:
    categories = ["Business", "Humanities", "Medical", "Other", "STEM", "Social Sciences"]
    sizes = [(1 + i, i % 2 == 0) for i in range(len(categories))]
    rows = [translated(*size, subject_category=name) for size, name in zip(sizes, categories, strict=True)]
    path = tmp_path / "Global-MMLU-Lite/fr/test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row for part in rows for row in part]), path)
    found = run_tasks(["global_mmlu_fr"], Knows(), TaskOptions(tmp_path, fewshot=0))
    assert {one.task: one.value for one in found if one.metric == "acc"} == {
        **{f"global_mmlu_fr_{name.lower().replace(' ', '_')}": i % 2 == 0 for i, name in enumerate(categories)},
        "global_mmlu_fr": pytest.approx((1 + 3 + 5) / 21),
    }


def test_perplexity_tasks_have_the_bits_of_the_text_without_its_end(tmp_path: Path) -> None:
    pages = ["One two three. Four five.", "Ünïcode, and more of it. " * 20]
    lines(tmp_path / "wikitext/test.jsonl", [{"page": page} for page in pages])

    class TwoBits(Knows):
        def likelihoods(self, asked: Sequence[Continuation], progress: Any = None) -> list[Likelihood]:
            return [Likelihood(2.0 * len(one.text), False) for one in asked]

    found = {one.metric: one for one in run_tasks(["wikitext"], TwoBits(), TaskOptions(tmp_path))}
    one = found["bits_per_byte"]
    assert (one.value, one.low, one.high) == pytest.approx((2.0, 2.0, 2.0))
    assert found["byte_perplexity"].value == pytest.approx(4.0)


def test_own_tasks_come_first_and_need_no_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(answers: Answers, options: TaskOptions) -> list[TaskResult]:
        return [TaskResult("mine", "exact", 0.5, 0.4, 0.6, 10, options.seed)]

    monkeypatch.setattr(tasks_module, "OWN", {"mine": OwnTask(run)})
    assert [one.to_json()["seed"] for one in run_tasks(["mine", "mine"], Knows(), TaskOptions(seed=4))] == [4]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["helaswag"], {}, "helaswag is unknown; near to it: hellaswag"),
        ([""], {}, "an empty name"),
        (["hellaswag"], {"data_dir": Path()}, r"no data of the task hellaswag.*hellaswag_val.jsonl"),
        (["hellaswag"], {"limit": 0}, "--limit: 0"),
        (["hellaswag"], {"fewshot": -1}, "--fewshot: -1"),
        (["hellaswag"], {"data_dir": Path("nowhere")}, "--data-dir: nowhere is not a directory"),
        (["squadv2"], {"data_dir": Path()}, "squadv2: fetches its own data"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(names: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(AUNetError, match=message) as error:
        run_tasks(names, Knows(), TaskOptions(**options))
    assert len(str(error.value).splitlines()) == 1


def test_bad_files_are_named_in_one_line(tmp_path: Path) -> None:
    hellaswag(tmp_path)
    with pytest.raises(AUNetError, match="4 examples in the prompt need 5 and there are 4"):
        run_tasks(["hellaswag"], Knows(), TaskOptions(tmp_path, fewshot=4))
    path = tmp_path / "hellaswag/hellaswag_val.jsonl"
    for content, message in [
        ("{", f"{path}: cannot be read"),
        ('{"a": 1}\n{"a": []}\n', f"{path}: its records are not all alike"),
        ('{"a": 1}\n', "hellaswag: the task cannot be made ready .*KeyError"),
    ]:
        path.write_text(content)
        with pytest.raises(AUNetError, match=message) as error:
            run_tasks(["hellaswag"], Knows(), TaskOptions(tmp_path))
        assert len(str(error.value).splitlines()) == 1


def test_offline_the_directory_of_data_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(AUNetError, match=r"hellaswag: .*\(ConnectionError: no route\); offline.* --data-dir DIR"):
        run_tasks(["hellaswag"], Knows(), TaskOptions())


class TestCommand:
    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        path = tmp_path_factory.mktemp("model")
        LanguageModel(small_model(small_config(2))).save(path)
        return path

    def test_json_and_a_cache_that_is_used_again(self, model: Path, tmp_path: Path) -> None:
        hellaswag(tmp_path)
        piqa(tmp_path)
        command = ["eval", model, "--tasks", "hellaswag,piqa", "--data-dir", tmp_path, "--limit", "3", "--seed", "5"]
        command += ["--cache", tmp_path / "cache"]
        first = here(*command, "--json")
        assert first.returncode == 0, first.stderr
        values = json.loads(first.stdout)
        assert (values["model"], values["digest"]) == (model.name, model_digest(model))
        assert [(one["task"], one["metric"]) for one in values["results"]] == [
            (task, metric) for task in ("hellaswag", "piqa") for metric in ("acc_chars", "acc", "acc_norm")
        ]
        for one in values["results"]:
            assert one["low"] <= one["value"] <= one["high"]
            assert (one["n"], one["seed"], one["settings"]["limit"], len(one["examples"])) == (3, 5, 3, 3)
        assert json.loads(here(*command, "--json", "--batch", "1").stdout) == values
        shown = here(*command)
        assert shown.returncode == 0, shown.stderr
        assert "acc_chars" in shown.stdout

    @pytest.mark.parametrize("arguments", [[], ["--tasks", "piqa", "a.txt"]])
    def test_files_or_tasks(self, model: Path, arguments: list[str]) -> None:
        result = here("eval", model, *arguments)
        assert result.returncode == 2
        assert result.stderr.splitlines() == [
            "aunet: error: eval: name either FILES or --tasks, for instance --tasks hellaswag,arc_easy"
        ]
