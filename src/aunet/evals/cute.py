"""CUTE: does a model know the characters of its words (Edman, Schmid and Fraser 2024, arXiv 2409.15452)?

A prompt states the task, shows four solved examples, asks, and ends with `Answer: "`; what the model writes before the
next quotation mark, without spaces around it, has to equal the label. In tasks on words case does not count. These are
the rules, wordings and examples of the benchmark (github.com/Leukas/CUTE, MIT: `prompts.py`, `main.py`); slips of its
prompts, such as a quotation mark that is missing, indented lines and choices without quotation marks, are mended.

The solved examples belong to the prompts and are not rows of the data, with one exception: the one about "happy" is
also a row of `orth` and of `sem`. Rows that are solved in the prompt are left out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from aunet.errors import AUNetError, ConfigError
from aunet.evals import statistics
from aunet.evals.answers import Answers, Writing
from aunet.evals.hub import hub_rows
from aunet.evals.options import TaskOptions
from aunet.evals.questions import Question
from aunet.evals.results import HASH, TaskResult, data_hash

HUB = "leukas/cute"
QUOTE = '"'
SPARE_BYTES = 8
"""For spaces around an answer; one that is longer than the longest label by more is wrong anyway."""
SHOTS = 4


@dataclass(frozen=True)
class Template:
    """How a task is put."""

    instruction: str
    question: str
    """With {} for every input."""
    shots: tuple[tuple[str, ...], ...]
    """Inputs, and last the answer."""

    @property
    def inputs(self) -> int:
        """How many inputs a row has."""
        return self.question.count("{}")

    def prompt(self, inputs: Sequence[str], fewshot: int) -> str:
        """Everything up to the answer's opening quotation mark."""
        solved = [
            f"{i}. {self.question.format(*given)} Answer: {QUOTE}{answer}{QUOTE}\n"
            for i, (*given, answer) in enumerate(self.shots[:fewshot], 1)
        ]
        examples = f"{self.instruction} based on the following examples:\n\n{''.join(solved)}\n"
        return (examples if solved else "") + f"Question: {self.question.format(*inputs)}" + CUE


CUE = f" Answer: {QUOTE}"
DAY, THINK = "it is a beautiful day", "i think i can do it"
COW, HAPPY = "The cow goes moo.", "I am very happy."
TEMPLATES = {
    "spell": Template(
        "Spell out the word, putting spaces between each letter,",
        'Spell out the word "{}".',
        tuple((word, " ".join(word)) for word in ("alphabet", "hello", "zebra", "tongue")),
    ),
    "spell_inverse": Template(
        "Write the word that is spelled out, without any spaces,",
        'Write the word "{}".',
        tuple((" ".join(word), word) for word in ("alphabet", "hello", "zebra", "tongue")),
    ),
    "contains_char": Template(
        "Answer whether the specified letter is in the given word,",
        'Is there a "{}" in "{}"?',
        (("a", "alphabet", "Yes"), ("z", "alphabet", "No"), ("u", "hello", "No"), ("o", "hello", "Yes")),
    ),
    "contains_word": Template(
        "Answer whether the specified word is in the given sentence (case insensitive),",
        'Is there a "{}" in "{}"?',
        (("the", COW, "Yes"), ("goat", COW, "No"), ("glad", HAPPY, "No"), ("happy", HAPPY, "Yes")),
    ),
    "orth": Template(
        "Select the word that is closer in Levenshtein distance to the given word",
        'Closer in Levenshtein distance to "{}": "{}", "{}".',
        (
            ("bold", "cold", "brave", "cold"),
            ("computer", "completed", "laptop", "completed"),
            ("happy", "glad", "apply", "apply"),
            ("camp", "ramp", "tent", "ramp"),
        ),
    ),
    "sem": Template(
        "Select the word that is more semantically related to the given word",
        'More semantically related to "{}": "{}", "{}".',
        (
            ("bold", "cold", "brave", "brave"),
            ("computer", "completed", "laptop", "laptop"),
            ("happy", "glad", "apply", "glad"),
            ("camp", "ramp", "tent", "tent"),
        ),
    ),
    "ins_char": Template(
        "Add the specified letter after every instance of the second specified letter in a given word,",
        'Add an "{}" after every "{}" in "{}".',
        (
            ("e", "a", "alphabet", "aelphaebet"),
            ("l", "l", "hello", "hellllo"),
            ("t", "z", "zebra", "ztebra"),
            ("f", "u", "tongue", "tongufe"),
        ),
    ),
    "ins_word": Template(
        "Add the specified word after every instance of the second specified word in a given sentence,",
        'Add "{}" after every "{}" in "{}".',
        (
            ("bad", "beautiful", DAY, "it is a beautiful bad day"),
            ("hello", "day", DAY, "it is a beautiful day hello"),
            ("not", "i", THINK, "i not think i not can do it"),
            ("can", "can", THINK, "i think i can can do it"),
        ),
    ),
    "del_char": Template(
        "Delete every instance of a specified letter in a given word,",
        'Delete every instance of "{}" in "{}".',
        (("a", "alphabet", "lphbet"), ("l", "hello", "heo"), ("z", "zebra", "ebra"), ("u", "tongue", "tonge")),
    ),
    "del_word": Template(
        "Delete every instance of a specified word in a given sentence,",
        'Delete every instance of "{}" in "{}".',
        (
            ("a", DAY, "it is beautiful day"),
            ("beautiful", DAY, "it is a day"),
            ("i", THINK, "think can do it"),
            ("can", THINK, "i think i do it"),
        ),
    ),
    "sub_char": Template(
        "Substitute the first specified letter with the second specified letter in a given word,",
        'Substitute "{}" with "{}" in "{}".',
        (
            ("a", "b", "alphabet", "blphbbet"),
            ("h", "e", "hello", "eello"),
            ("z", "a", "zebra", "aebra"),
            ("u", "e", "tongue", "tongee"),
        ),
    ),
    "sub_word": Template(
        "Substitute the first specified word with the second specified word in a given sentence,",
        'Substitute "{}" with "{}" in "{}".',
        (
            ("it", "a", DAY, "a is a beautiful day"),
            ("it", "beautiful", DAY, "beautiful is a beautiful day"),
            ("i", "do", THINK, "do think do can do it"),
            ("think", "can", THINK, "i can i can do it"),
        ),
    ),
    "swap_char": Template(
        "Swap the positions of two specified letters in a given word,",
        'Swap "{}" and "{}" in "{}".',
        (
            ("l", "b", "alphabet", "abphalet"),
            ("h", "e", "hello", "ehllo"),
            ("z", "a", "zebra", "aebrz"),
            ("u", "e", "tongue", "tongeu"),
        ),
    ),
    "swap_word": Template(
        "Swap the positions of two specified words in a given sentence,",
        'Swap "{}" and "{}" in "{}".',
        (
            ("it", "a", DAY, "a is it beautiful day"),
            ("it", "beautiful", DAY, "beautiful is a it day"),
            ("think", "do", THINK, "i do i can think it"),
            ("can", "do", THINK, "i think i do can it"),
        ),
    ),
}
TASKS = tuple(TEMPLATES)
CHARACTER_TASKS = ("spell", "spell_inverse", "contains_char", "ins_char", "del_char", "sub_char", "swap_char")
WORD_TASKS = ("contains_word", "ins_word", "del_word", "sub_word", "swap_word")
RANDOM_TASKS = tuple(f"{task}_rand" for task in CHARACTER_TASKS)
"""The same on strings of random letters, of the paper's appendix; asked where their files are, and in no average."""
AVERAGES = {"cute_character": CHARACTER_TASKS, "cute_word": WORD_TASKS, "cute": TASKS}
CHOICE_TASKS = ("contains_char", "contains_word", "orth", "sem")


@dataclass(frozen=True)
class Example:
    """A row as it is asked."""

    prompt: str
    inputs: tuple[str, ...]
    """Empty if it came from the hub, where prompts are written out."""
    label: str


@dataclass(frozen=True)
class Task:
    """The rows of a task."""

    name: str
    examples: tuple[Example, ...]
    chance: float
    """Exact match of a guess, by all rows: a word offered, or else an answer drawn from those of the task."""
    left_out: int
    """Rows that are solved in the prompt."""


def run(answers: Answers, options: TaskOptions) -> list[TaskResult]:
    """Exact match of every task, and the averages over tasks on characters, on words and over all 14.

    `options.data_dir` holds the benchmark's TSV files, itself or in `cute`. The settings of a result hold its `chance`.
    """
    results, scores, read = [], {}, {}
    common = {"fewshot": shots(options), "limit": options.limit, "data": options.source}
    for task in read_tasks(options):
        scores[task.name] = ask(answers, task)
        read[task.name] = data_hash(text for example in task.examples for text in (example.prompt, example.label))
        settings = {
            **common,
            "left_out": task.left_out,
            "chance": round(task.chance, 4),
            HASH: read[task.name],
        }
        results.append(_result(f"cute_{task.name}", [scores[task.name]], options, settings))
    chances = {result.task.removeprefix("cute_"): result.settings["chance"] for result in results}
    for name, parts in AVERAGES.items():
        chance = sum(chances[part] for part in parts) / len(parts)
        of_average = {**common, "tasks": parts, "chance": round(chance, 4)}
        of_average |= {HASH: data_hash(read[part] for part in parts)}
        results.append(_result(name, [scores[part] for part in parts], options, of_average))
    return results


def read_tasks(options: TaskOptions, names: Sequence[str] = TASKS + RANDOM_TASKS) -> list[Task]:
    """The tasks of these names; those on random letters only where their files are. AUNetError for anything amiss."""
    if shots(options) > SHOTS:
        raise ConfigError(f"--fewshot: CUTE has {SHOTS} solved examples, {options.fewshot} cannot be shown")
    if options.data_dir is None:
        tasks = [_from_hub(name, options) for name in names if name in TASKS]
    else:
        directory = folder(options.data_dir)
        wanted = [name for name in names if name in TASKS or (directory / f"{name}.tsv").is_file()]
        tasks = [_from_file(name, directory / f"{name}.tsv", options) for name in wanted]
    for task in tasks:
        if not task.examples:
            raise AUNetError(f"CUTE, {task.name}: every row is solved in the prompt, none is left to ask")
    return tasks


def folder(data_dir: Path) -> Path:
    """Where the benchmark's files are looked for."""
    own = data_dir / "cute"
    return own if own.is_dir() else data_dir


def ask(answers: Answers, task: Task) -> list[float]:
    """1 for each example that is answered with its label, else 0."""
    longest = max(len(example.label.encode()) for example in task.examples) + SPARE_BYTES
    asked = [Writing(example.prompt.encode(), longest, (QUOTE.encode(),)) for example in task.examples]
    return [
        float(normalised(task.name, data.decode(errors="replace")) == normalised(task.name, example.label))
        for data, example in zip(answers.writings(asked), task.examples, strict=True)
    ]


def normalised(task: str, answer: str) -> str:
    """What is compared: without spaces around it, and without case in tasks on words.

    >>> normalised("spell", " T h e "), normalised("swap_word", "The smiled octopus.")
    ('T h e', 'the smiled octopus.')
    """
    return answer.strip().lower() if task in WORD_TASKS else answer.strip()


def questions(options: TaskOptions) -> list[Question]:
    """The tasks that choose between two answers as questions with choices, each closed by its quotation mark."""
    asked = []
    for task in read_tasks(options, CHOICE_TASKS):
        for example in task.examples:
            choices = ("Yes", "No") if task.name.startswith("contains") else example.inputs[1:]
            if example.label not in choices:
                raise AUNetError(
                    f"CUTE, {task.name}: {example.label!r} is none of {', '.join(choices) or 'no choices'}"
                )
            closed = tuple(choice + QUOTE for choice in choices)
            asked.append(Question(example.prompt.removesuffix(CUE), closed, choices.index(example.label), CUE))
    return asked


def shots(options: TaskOptions) -> int:
    """How many solved examples are shown."""
    return SHOTS if options.fewshot is None else options.fewshot


def _result(
    name: str, scores: Sequence[Sequence[float]], options: TaskOptions, settings: Mapping[str, object]
) -> TaskResult:
    found = statistics.mean_of_means(scores, options.seed)
    count = sum(map(len, scores))
    # Each task counts the same: its examples are weighed so that they average to the average of the tasks.
    examples = tuple(score * count / (len(scores) * len(task)) for task in scores for score in task)
    return TaskResult(name, "exact_match", found.value, found.low, found.high, count, options.seed, settings, examples)


def _from_file(name: str, path: Path, options: TaskOptions) -> Task:
    template = TEMPLATES[name.removesuffix("_rand")]
    rows = list(_rows(path, template.inputs))
    kept = [row for row in rows if row not in template.shots]
    examples = tuple(
        Example(template.prompt(inputs, shots(options)), tuple(inputs), label)
        for *inputs, label in islice(kept, options.limit)
    )
    return Task(name, examples, _chance(name, [label for *_, label in kept]), len(rows) - len(kept))


def _rows(path: Path, inputs: int) -> Iterable[tuple[str, ...]]:
    """Inputs and label of every line."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except OSError as error:
        raise AUNetError(
            f"--data-dir: {path} cannot be read ({error.strerror}); it holds a file for every task"
        ) from None
    except UnicodeDecodeError:
        raise AUNetError(f"{path} is not UTF-8") from None
    header = [*(f"input{i}" for i in range(1, inputs + 1)), "label"]
    if lines[0].split("\t") != header or len(lines) < 2:
        raise AUNetError(f"{path}: its first line has to be {' '.join(header)} with tabs between, then a row at least")
    for number, line in enumerate(lines[1:], 2):
        row = tuple(line.split("\t"))
        if len(row) != len(header):
            raise AUNetError(f"{path}, line {number}: {len(row)} columns instead of {len(header)}")
        yield row


def _from_hub(name: str, options: TaskOptions) -> Task:
    """The hub holds prompts as they are asked of a chat model, with their four solved examples."""
    if shots(options) != SHOTS:
        raise ConfigError(f"--fewshot: CUTE of the hub has {SHOTS} solved examples; give its TSV files with --data-dir")
    rows = hub_rows(HUB, name)
    examples = []
    for row in rows:
        lines = [line.strip() for line in str(row["prompt"]).strip().splitlines()]
        asked = _plain(lines[-1].removeprefix("Question:"))
        if not any(asked in _plain(line) for line in lines[:-1]):
            examples.append(Example("\n".join(lines) + CUE, (), str(row["answer"]).strip()))
    chance = _chance(name, [example.label for example in examples])
    return Task(name, tuple(examples[: options.limit]), chance, len(rows) - len(examples))


def _chance(name: str, labels: Sequence[str]) -> float:
    if name in ("orth", "sem"):
        return 0.5
    counts = Counter(normalised(name, label) for label in labels)
    return sum((count / len(labels)) ** 2 for count in counts.values())


def _plain(line: str) -> str:
    """Without quotation marks, of which some are missing."""
    return line.replace(QUOTE, "").strip()
