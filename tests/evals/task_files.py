"""Data of tasks in the forms in which their makers give them out; all contents are invented."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

COUNT = 4


def lines(path: Path, records: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def answers(i: int, count: int = 4) -> tuple[list[str], int]:
    """Answers of which the i-th, from the front again and again, is right."""
    at = i % count
    return ["right" if j == at else f"wrong {j}" for j in range(count)], at


def hellaswag(to: Path) -> None:
    records = []
    for i in range(COUNT):
        endings, at = answers(i)
        context = {"ctx_a": f"He took {i} eggs.", "ctx_b": "then he", "ctx": "", "activity_label": "Cooking"}
        records.append({"ind": i, **context, "endings": endings, "label": at, "split": "val", "source_id": "x"})
    lines(to / "hellaswag/hellaswag_val.jsonl", records)


def with_stem(file: str, letters: str = "ABCD") -> Callable[[Path], None]:
    def write(to: Path) -> None:
        records = []
        for i in range(COUNT):
            texts, at = answers(i, len(letters))
            choices = [{"text": text, "label": letter} for text, letter in zip(texts, letters, strict=True)]
            question = {"stem": f"Which is number {i}?", "choices": choices}
            records.append({"id": str(i), "question": question, "answerKey": letters[at]})
        lines(to / file, records)

    return write


def hub_arc(to: Path) -> None:
    """A parquet export of the hub."""
    rows = []
    for i in range(COUNT):
        texts, at = answers(i)
        choices = {"text": texts, "label": list("ABCD")}
        rows.append({"id": str(i), "question": f"Which is number {i}?", "choices": choices, "answerKey": "ABCD"[at]})
    path = to / "ai2_arc/ARC-Challenge/test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def piqa(to: Path) -> None:
    pairs = [answers(i, 2) for i in range(COUNT)]
    lines(to / "piqa/valid.jsonl", [{"goal": "Eat", "sol1": a, "sol2": b} for (a, b), _ in pairs])
    (to / "piqa/valid-labels.lst").write_text("".join(f"{at}\n" for _, at in pairs))


def social_iqa(to: Path) -> None:
    these = [answers(i, 3) for i in range(COUNT)]
    rows = [
        {"context": "He fell.", "question": "Why?", "answerA": a, "answerB": b, "answerC": c} for (a, b, c), _ in these
    ]
    lines(to / "social_iqa/dev.jsonl", rows)
    (to / "social_iqa/dev-labels.lst").write_text("".join(f"{at + 1}\n" for _, at in these))


def winogrande(to: Path) -> None:
    these = [answers(i, 2) for i in range(COUNT)]
    rows = [
        {"qID": str(i), "sentence": "The dog left, and _ was glad.", "option1": a, "option2": b, "answer": str(at + 1)}
        for i, ((a, b), at) in enumerate(these)
    ]
    lines(to / "winogrande/dev.jsonl", rows)


def mmlu(to: Path) -> None:
    path = to / "mmlu/test/anatomy_test.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        for i in range(COUNT):
            texts, at = answers(i)
            csv.writer(file).writerow([f"Where is bone, number {i}?", *texts, "ABCD"[at]])


def race(to: Path) -> None:
    for i in range(COUNT):
        texts, at = answers(i)
        values = {
            "article": "There was a cat.",
            "questions": ["First?", "Second?"],
            "options": [["a", "b", "c", "d"], texts],
            "answers": ["A", "ABCD"[at]],
        }
        path = to / f"race/test/high/{i}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


CHOICES: dict[str, Callable[[Path], None]] = {
    "hellaswag": hellaswag,
    "arc_easy": with_stem("arc_easy/ARC-Easy-Test.jsonl"),
    "arc_challenge": hub_arc,
    "openbookqa": with_stem("openbookqa/test.jsonl"),
    "commonsense_qa": with_stem("commonsense_qa/dev_rand_split.jsonl", "ABCDE"),
    "piqa": piqa,
    "social_iqa": social_iqa,
    "winogrande": winogrande,
    "mmlu_anatomy": mmlu,
    "race": race,
}


def translated(count: int, right: bool = True, **more: str) -> list[dict[str, str]]:
    """Rows of translated MMLU; one of its forms calls the question `instruction`, the other `question`."""
    rows = []
    for i in range(count):
        texts, at = answers(i)
        options = {f"option_{letter}": text for letter, text in zip("abcd", texts, strict=True)}
        question = {"instruction": f"Laquelle, {i} ?", "question": f"Laquelle, {i} ?"}
        rows.append({**question, **options, "answer": "ABCD"[at if right else at - 1], **more})
    return rows
