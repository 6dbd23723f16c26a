"""CUTE: prompts, rules of the comparison, averages, files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aunet.errors import AUNetError, ConfigError
from aunet.evals import cute
from aunet.evals.cute import CHARACTER_TASKS, RANDOM_TASKS, TASKS, TEMPLATES, WORD_TASKS
from aunet.evals.options import TaskOptions
from tests.evals.fakes import Fake

WORDS = ("house", "river", "happy", "glad", "apply")


def write_benchmark(directory: Path, rows: int = 4, tasks: tuple[str, ...] = TASKS + RANDOM_TASKS) -> Path:
    """Files in the form of the benchmark; a label is Yes or No, the last input, or an input with a star."""
    directory.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        inputs = TEMPLATES[task.removesuffix("_rand")].inputs
        lines = ["\t".join([*(f"input{i + 1}" for i in range(inputs)), "label"])]
        for k in range(rows):
            given = [f"{WORDS[(k + i) % len(WORDS)]}{k}" for i in range(inputs)]
            label = ("Yes", "No")[k % 2] if task.startswith("contains") else f"{given[-1]}*"
            if task in ("orth", "sem"):
                label = given[1 + k % 2]
            lines.append("\t".join([*given, label]))
        (directory / f"{task}.tsv").write_text("\n".join(lines) + "\n")
    return directory


def solved(data_dir: Path) -> dict[str, str]:
    """Labels by prompt."""
    return {e.prompt: e.label for task in cute.read_tasks(TaskOptions(data_dir)) for e in task.examples}


def test_a_prompt_is_that_of_the_benchmark() -> None:
    assert TEMPLATES["spell"].prompt(["cow"], 2) == (
        "Spell out the word, putting spaces between each letter, based on the following examples:\n\n"
        '1. Spell out the word "alphabet". Answer: "a l p h a b e t"\n'
        '2. Spell out the word "hello". Answer: "h e l l o"\n\n'
        'Question: Spell out the word "cow". Answer: "'
    )
    assert TEMPLATES["spell"].prompt(["cow"], 0) == 'Question: Spell out the word "cow". Answer: "'


def test_solved_examples_are_right() -> None:
    for task, template in TEMPLATES.items():
        assert len(template.shots) == 4
        for *given, answer in template.shots:
            assert len(given) == template.inputs
            if task in ("orth", "sem"):
                assert answer in given[1:]
            unit = list if task.endswith("char") else str.split
            join = "".join if task.endswith("char") else " ".join
            if task.startswith("contains"):
                assert (given[0] in unit(given[1].lower().rstrip("."))) == (answer == "Yes")
            if task.startswith("ins"):
                new, after, text = given
                assert answer == join(x for u in unit(text) for x in ([u, new] if u == after else [u]))
            if task.startswith("del"):
                assert answer == join(u for u in unit(given[1]) if u != given[0])
            if task.startswith("sub"):
                assert answer == join(given[1] if u == given[0] else u for u in unit(given[2]))


def test_whoever_knows_all_answers_has_everything_right(tmp_path: Path) -> None:
    labels = solved(write_benchmark(tmp_path / "cute"))
    answers = Fake(lambda prompt: f' {labels[prompt]} " and so on')
    results = cute.run(answers, TaskOptions(tmp_path))
    assert {result.task for result in results} == {
        *(f"cute_{task}" for task in TASKS + RANDOM_TASKS),
        "cute",
        "cute_character",
        "cute_word",
    }
    assert {(r.value, r.low, r.high) for r in results} == {(1.0, 1.0, 1.0)}
    assert all(w.stop == (b'"',) and w.prompt.endswith(b'Answer: "') for w in answers.writings_asked)


def test_case_counts_for_characters_only(tmp_path: Path) -> None:
    labels = solved(write_benchmark(tmp_path))
    results = {r.task: r for r in cute.run(Fake(lambda prompt: labels[prompt].upper()), TaskOptions(tmp_path))}
    assert all(results[f"cute_{task}"].value == 1 for task in WORD_TASKS)
    assert all(results[f"cute_{task}"].value == 0 for task in CHARACTER_TASKS)
    assert (results["cute_word"].value, results["cute_character"].value) == (1, 0)
    assert results["cute"].value == pytest.approx(5 / 14)
    assert results["cute"].n == 14 * 4


def test_examples_average_to_the_value_whatever_the_sizes_of_tasks(tmp_path: Path) -> None:
    write_benchmark(tmp_path)
    write_benchmark(tmp_path, 40, ("contains_word",))
    results = cute.run(Fake(lambda prompt: "Yes"), TaskOptions(tmp_path))
    for result in results:
        assert sum(result.examples) / len(result.examples) == pytest.approx(result.value)
    word = next(r for r in results if r.task == "cute_word")
    assert word.value == pytest.approx(0.5 / 5)
    assert word.low < word.value < word.high


def test_rows_that_the_prompt_solves_are_left_out(tmp_path: Path) -> None:
    write_benchmark(tmp_path)
    with (tmp_path / "orth.tsv").open("a") as file:
        file.write("happy\tglad\tapply\tapply\n")
    (task,) = cute.read_tasks(TaskOptions(tmp_path), ["orth"])
    assert (len(task.examples), task.left_out) == (4, 1)


def test_a_limit_takes_the_first_rows_and_random_letters_may_be_missing(tmp_path: Path) -> None:
    write_benchmark(tmp_path, tasks=TASKS)
    tasks = cute.read_tasks(TaskOptions(tmp_path, limit=2))
    assert [task.name for task in tasks] == list(TASKS)
    assert {len(task.examples) for task in tasks} == {2}


def test_chance_is_that_of_a_guess(tmp_path: Path) -> None:
    chances = {t.name: t.chance for t in cute.read_tasks(TaskOptions(write_benchmark(tmp_path), limit=1))}
    assert chances["contains_char"] == chances["contains_word"] == 0.5
    assert chances["orth"] == chances["sem"] == 0.5
    assert chances["spell"] == 1 / 4


def test_questions_are_the_choices_with_the_right_one_marked(tmp_path: Path) -> None:
    asked = cute.questions(TaskOptions(write_benchmark(tmp_path)))
    assert len(asked) == 16
    assert asked[0].choices == ('Yes"', 'No"')
    labels = solved(tmp_path)
    assert all(q.choices[q.gold] == labels[q.prompt + q.cue] + '"' for q in asked)


def test_the_benchmarks_own_files(shared: Callable[[str], Path]) -> None:
    tasks = {task.name: task for task in cute.read_tasks(TaskOptions(shared("data")))}
    assert set(tasks) == {*TASKS, *RANDOM_TASKS}
    for name, task in tasks.items():
        assert (len(task.examples), task.left_out) == ((999, 1) if name in ("orth", "sem") else (1000, 0)), name
        assert task.chance == pytest.approx(0.5 if name.startswith(("contains", "orth", "sem")) else 0, abs=0.002)
    assert len(cute.questions(TaskOptions(shared("data"), limit=20))) == 80


def test_bad_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(AUNetError, match=r"--data-dir: .*spell.tsv cannot be read"):
        cute.read_tasks(TaskOptions(tmp_path))
    write_benchmark(tmp_path)
    with (tmp_path / "spell.tsv").open("a") as file:
        file.write("one\ttwo\tthree\n")
    with pytest.raises(AUNetError, match=r"spell.tsv, line 6: 3 columns instead of 2"):
        cute.read_tasks(TaskOptions(tmp_path))
    (tmp_path / "spell.tsv").write_text("word\tlabel\n")
    with pytest.raises(AUNetError, match="its first line has to be input1 label"):
        cute.read_tasks(TaskOptions(tmp_path))
    (tmp_path / "spell.tsv").write_bytes(b"input1\tlabel\n\xff\tx\n")
    with pytest.raises(AUNetError, match="not UTF-8"):
        cute.read_tasks(TaskOptions(tmp_path))
    write_benchmark(tmp_path)
    (tmp_path / "sem.tsv").write_text("input1\tinput2\tinput3\tlabel\nhappy\tglad\tapply\tglad\n")
    with pytest.raises(AUNetError, match="CUTE, sem: every row is solved in the prompt"):
        cute.run(Fake(), TaskOptions(tmp_path))
    with pytest.raises(ConfigError, match="4 solved examples, 5 cannot"):
        cute.read_tasks(TaskOptions(tmp_path, fewshot=5))


def test_the_form_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(name: str, split: str) -> list[dict[str, str]]:
        head = "Select the word, based on the following examples:\n            \n            "
        shot = '1. Closer to "happy": "glad, "apply". Answer: "apply"\n            \n            '
        asked = ('Question: Closer to "happy": "glad", "apply".', 'Question: Closer to "be": "ben", "remain".')
        return [{"prompt": head + shot + question, "answer": " ben "} for question in asked]

    monkeypatch.setattr(cute, "hub_rows", rows)
    (task,) = cute.read_tasks(TaskOptions(), ["orth"])
    assert (len(task.examples), task.left_out) == (1, 1)
    assert task.examples[0].prompt.endswith('\n\nQuestion: Closer to "be": "ben", "remain". Answer: "')
    assert task.examples[0].label == "ben"
