"""Data sets of tasks from local files, in the forms in which their makers and the hub give them out.

    DIR/<task>/<file>, or the same under the name of the data set: DIR/gsm8k/test.jsonl, DIR/ai2_arc/ARC-Easy-Test.jsonl

Files are found by the makers' names (`LAYOUTS`) or as <split>.jsonl, <split>.json, <split>.parquet and
<split>-*.parquet, also in the folders `data`, <configuration> and data/<configuration> that the hub has. Records in the
makers' form are turned into the hub's, which the tasks of lm-evaluation-harness read.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aunet.errors import AUNetError, MissingExtra

Record = dict[str, Any]
SPLITS = ("training_split", "validation_split", "test_split")
GENERIC = ("{split}.jsonl", "{split}.json", "{split}.parquet", "{split}-*.parquet")
"""Names of files that any data set may have."""


@dataclass(frozen=True)
class Layout:
    """How the makers of a data set give it out."""

    files: Mapping[str, tuple[str, ...]]
    """Names of the files of each split, of which the first is taken that is there; {name} is the configuration."""
    convert: Callable[[Record], Record] = dict
    """From the makers' records to the hub's; leaves the hub's as they are."""


def _files(train: str = "", validation: str = "", test: str = "", **more: str) -> dict[str, tuple[str, ...]]:
    splits = {"train": train, "validation": validation, "test": test, **more}
    return {split: tuple(names.split()) for split, names in splits.items()}


def _stem_and_choices(record: Record) -> Record:
    """ARC, CommonsenseQA and OpenBookQA: a question with a stem and a list of choices."""
    question = record.get("question")
    if not isinstance(question, dict):
        return record
    choices = {key: [choice[key] for choice in question["choices"]] for key in ("text", "label")}
    stem = question["stem"]
    return {"question": stem, "question_stem": stem, "choices": choices, "answerKey": record["answerKey"]}


def _boolq(record: Record) -> Record:
    return {**record, "label": int(record["answer" if "answer" in record else "label"])}


def _triviaqa(record: Record) -> Record:
    if "Question" not in record:
        return record
    answer = record["Answer"]
    return {"question": record["Question"], "answer": {"value": answer["Value"], "aliases": answer["Aliases"]}}


def _mmlu(record: Record) -> Record:
    """A row of a table without a head: question, four choices, letter."""
    if "row" not in record:
        return record
    question, *choices, letter = record["row"]
    return {"question": question, "choices": choices, "answer": [*"ABCD"].index(letter)}


def _race(record: Record) -> Record:
    if "questions" not in record:
        return record
    parts = zip(record["questions"], record["answers"], record["options"], strict=True)
    problems = [{"question": question, "answer": answer, "options": options} for question, answer, options in parts]
    return {"article": record["article"], "problems": str(problems)}


MMLU = Layout(_files(dev="dev/{name}_dev.csv", validation="val/{name}_val.csv", test="test/{name}_test.csv"), _mmlu)
LAYOUTS = {
    "arc_challenge": Layout(
        _files("ARC-Challenge-Train.jsonl", "ARC-Challenge-Dev.jsonl", "ARC-Challenge-Test.jsonl"), _stem_and_choices
    ),
    "arc_easy": Layout(_files("ARC-Easy-Train.jsonl", "ARC-Easy-Dev.jsonl", "ARC-Easy-Test.jsonl"), _stem_and_choices),
    "boolq": Layout(_files("train.jsonl", "dev.jsonl val.jsonl"), _boolq),
    "commonsense_qa": Layout(_files("train_rand_split.jsonl", "dev_rand_split.jsonl"), _stem_and_choices),
    "hellaswag": Layout(_files("hellaswag_train.jsonl", "hellaswag_val.jsonl")),
    "nq_open": Layout(_files("NQ-open.train.jsonl", "NQ-open.dev.jsonl")),
    "openbookqa": Layout(_files("train.jsonl", "dev.jsonl", "test.jsonl"), _stem_and_choices),
    "piqa": Layout(_files("train.jsonl", "valid.jsonl")),
    "race": Layout(_files(test="test/high/*.txt"), _race),
    "social_iqa": Layout(_files("train.jsonl", "dev.jsonl")),
    "triviaqa": Layout(_files("unfiltered-web-train.json", "unfiltered-web-dev.json"), _triviaqa),
    "winogrande": Layout(_files("train_xl.jsonl", "dev.jsonl")),
}


def with_local_data(config: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The configuration of a task of the harness, with local files in place of the hub.

    Only the split that is scored must be there. Where there is none for the examples of the prompt, these are taken
    from the scored one, never the question itself. AUNetError names what was looked for.
    """
    task = str(config["task"])
    scored = config.get("test_split") or config.get("validation_split")
    few = dict(config.get("fewshot_config") or {})
    shots = few.get("split") or config.get("fewshot_split") or config.get("training_split")
    wanted = {config.get(key) for key in SPLITS} | {shots, scored}
    names = {split: _names(config, split) for split in wanted if split}
    places = _places(config, directory)
    found = {split: paths for split, globs in names.items() if (paths := _first(places, globs))}
    if scored not in found:
        raise AUNetError(
            f"{directory}: no data of the task {task} there; its split {scored!r} is looked for as "
            f"{directory / task}/{' or '.join(names[scored]) if scored in names else '(none: it has no such split)'}"
        )
    convert = _layout(config).convert
    records = {split: [one for path in paths for one in _converted(path, convert)] for split, paths in found.items()}
    changed = {**config, "dataset_kwargs": None, "custom_dataset": _dataset_of(records, found)}
    changed |= {key: config[key] if config.get(key) in found else None for key in SPLITS}
    if "samples" not in few and shots not in found:
        # The harness leaves the question out of its own prompt where the examples are of the `test_split`.
        changed |= {"test_split": scored, "fewshot_split": scored}
        shots = scored
    changed["fewshot_config"] = {**few, **({"split": shots} if "split" in few else {})} or None
    return changed


def _layout(config: Mapping[str, Any]) -> Layout:
    task = str(config["task"])
    return LAYOUTS.get(task) or (MMLU if task.startswith("mmlu_") else Layout({}))


def _names(config: Mapping[str, Any], split: str) -> list[str]:
    names = (*_layout(config).files.get(split, ()), *GENERIC)
    return [name.format(split=split, name=config.get("dataset_name")) for name in names]


def _places(config: Mapping[str, Any], directory: Path) -> list[Path]:
    """Directories in which files may lie; `directory` itself where it has the name of the task or of its data."""
    names = [str(config["task"]), str(config.get("dataset_path") or "").split("/")[-1]]
    roots = [directory / name for name in names if name]
    roots += [directory] if directory.resolve().name in names else []
    name = str(config.get("dataset_name") or "")
    parts = (name, f"data/{name}", "", "data") if name else ("", "data")
    return [root / part for root in roots for part in parts]


def _first(places: list[Path], names: list[str]) -> list[Path]:
    """The files of the first name that is there."""
    for name in names:
        for place in places:
            if paths := sorted(path for path in place.glob(name) if path.is_file()):
                return paths
    return []


def _read(path: Path) -> Iterator[Record]:
    """The records of a file, with labels from a file beside it where there is one."""
    labels = path.with_name(f"{path.stem}-labels.lst")
    try:
        records = list(_records(path))
        marked = labels.read_text().split() if labels.is_file() else None
        if marked is None:
            yield from records
        else:
            for record, label in zip(records, marked, strict=True):
                yield {**record, "label": int(label)}
    except (OSError, ValueError) as error:  # what is wrong with JSON, UTF-8 and parquet is a ValueError too
        raise AUNetError(f"{path}: cannot be read as data of a task ({' '.join(str(error).split())[:120]})") from None


def _converted(path: Path, convert: Callable[[Record], Record]) -> Iterator[Record]:
    """As the harness has them; AUNetError for one that is not of the task."""
    for number, record in enumerate(_read(path), 1):
        try:
            yield convert(record)
        except (LookupError, ValueError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise AUNetError(f"{path}: record {number} is none of this task ({reason})") from None


def _records(path: Path) -> Iterator[Record]:
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet
        except ImportError:
            raise MissingExtra("pyarrow", "data", f"reading {path}") from None
        yield from pyarrow.parquet.read_table(path).to_pylist()
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            yield from ({"row": row} for row in csv.reader(file) if row)
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
    else:
        values = json.loads(path.read_text(encoding="utf-8"))
        for key in ("Data", "data"):
            values = values.get(key, values) if isinstance(values, dict) else values
        yield from values if isinstance(values, list) else [values]


def _dataset_of(records: Mapping[str, list[Record]], paths: Mapping[str, list[Path]]) -> Callable[..., Any]:
    """What the harness calls for the data of a task."""

    def dataset(**_: Any) -> Any:
        from datasets import Dataset

        made = {}
        for split, rows in records.items():
            try:
                made[split] = Dataset.from_list(rows)
            except (ValueError, TypeError, AttributeError) as error:  # pyarrow's errors are the first two
                reason = " ".join(str(error).split())[:120]
                raise AUNetError(f"{paths[split][0]}: its records are not all alike ({reason})") from None
        return made

    return dataset
