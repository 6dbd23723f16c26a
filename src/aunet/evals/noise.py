"""Character noise, and what of a model's scores is kept under it.

Noise works on whole characters as readers see them (grapheme clusters: a letter with its accents, an emoji of several
code points), so that text stays text; two that come to stand side by side may join into another one, which is as rare
as it is harmless. Line ends are never touched. Each place where a kind of noise can act is picked independently with
the probability `rate`, so that the expected number of edits is the rate times the number of such places:

    swap        exchanges a character with the next one; every character with a neighbour on its line is a place
    drop        leaves it out; every character
    repeat      writes it twice; every character
    case        makes it upper-case or lower-case; every character that has both
    homoglyph   replaces it by one that looks the same; the letters of HOMOGLYPHS

What is kept is the score on the noisy text over that on the clean one, or for bits per byte, where less is better, the
clean over the noisy; 1 is everything.
"""

from codecs import getincrementaldecoder
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from random import Random

import numpy as np
import regex  # type: ignore[import-untyped]

from aunet.data.sources import files_documents
from aunet.errors import AUNetError, ConfigError
from aunet.evals import cute, statistics
from aunet.evals.answers import Answers, Continuation
from aunet.evals.options import TaskOptions
from aunet.evals.questions import Question, right
from aunet.evals.results import HASH, TaskResult, data_hash
from aunet.evals.statistics import Interval

HOMOGLYPHS = {
    **dict(zip("aceijopsxyABCEHIJKMOPSTXY", "асеіјорѕхуАВСЕНІЈКМОРЅТХУ", strict=True)),  # Cyrillic
    **dict(zip("vNZ", "νΝΖ", strict=True)),  # Greek
}
"""Latin letters and those of other scripts that most faces draw alike."""

Units = list[str]
"""Grapheme clusters."""


def _swap(units: Units, places: Sequence[int]) -> Units:
    """From left to right: where neighbours are picked too, a character travels on."""
    for i in places:
        units[i : i + 2] = units[i + 1], units[i]
    return units


def _each(change: Callable[[str], str]) -> Callable[[Units, Sequence[int]], Units]:
    def edit(units: Units, places: Sequence[int]) -> Units:
        for i in places:
            units[i] = change(units[i])
        return units

    return edit


@dataclass(frozen=True)
class Kind:
    """A kind of noise."""

    acts_on: Callable[[str, str], bool]
    """Whether a place is one for it, by the character and the next one, which is empty at the end."""
    edit: Callable[[Units, Sequence[int]], Units]
    """Changes the characters at places that are in order."""


def _within_line(unit: str, following: str = " ") -> bool:
    return bool(following) and "\n" not in unit + following and "\r" not in unit + following


KINDS = {
    "swap": Kind(_within_line, _swap),
    "drop": Kind(lambda unit, _: _within_line(unit), _each(lambda unit: "")),
    "repeat": Kind(lambda unit, _: _within_line(unit), _each(lambda unit: 2 * unit)),
    "case": Kind(lambda unit, _: unit.swapcase() != unit, _each(str.swapcase)),
    "homoglyph": Kind(lambda unit, _: unit in HOMOGLYPHS, _each(HOMOGLYPHS.__getitem__)),
}


def places(text: str, kind: str) -> list[int]:
    """Where a kind of noise can act, as numbers of grapheme clusters."""
    units = regex.findall(r"\X", text)
    return [i for i, pair in enumerate(zip(units, [*units, ""][1:], strict=True)) if KINDS[kind].acts_on(*pair)]


def noisy(text: str, kind: str, rate: float, seed: int) -> str:
    """The text with noise; the same seed gives the same. ConfigError for another kind or a rate beyond 0 to 1.

    >>> noisy("so it goes", "repeat", 0.3, 0), noisy("so it goes", "case", 1.0, 0)
    ('so iit goes', 'SO IT GOES')
    """
    check(kind, rate)
    draw = Random(seed)  # noqa: S311
    picked = [i for i in places(text, kind) if draw.random() < rate]
    return "".join(KINDS[kind].edit(regex.findall(r"\X", text), picked))


def check(kind: str, rate: float) -> None:
    """ConfigError for a kind that is not known, or a rate that is no probability."""
    if kind not in KINDS:
        raise ConfigError(f"noise.kinds: {kind!r} is not a kind; known: {', '.join(KINDS)}")
    if not 0 <= rate <= 1:
        raise ConfigError(f"noise.rates: a rate lies from 0 to 1, {rate:g} does not")


@dataclass(frozen=True)
class NoiseOptions(TaskOptions):
    """What is asked. In `data_dir`: texts in the folder `noise`, in any format of training data; CUTE in `cute`.

    `limit` counts documents, and questions of each kind; `seed` is of the noise too.
    """

    rates: tuple[float, ...] = (0.1,)
    kinds: tuple[str, ...] = tuple(KINDS)
    max_bytes: int = 2048
    """Of a document; the rest is cut off at a character."""
    text_field: str = "text"
    """Where the text is in jsonl and parquet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind, rate in product(self.kinds, self.rates):
            check(kind, rate)
        if self.max_bytes < 1:
            raise ConfigError(f"noise.max_bytes: {self.max_bytes} is not at least 1")


def run(answers: Answers, options: NoiseOptions) -> list[TaskResult]:
    """Robustness on the texts and on the choices of CUTE that lie in the directory, one of them at least."""
    if options.data_dir is None:
        raise ConfigError(
            "noise needs --data-dir: texts in its folder noise, files of CUTE in its folder cute, or both"
        )
    folder = options.data_dir / "noise"
    if not folder.exists() and not any(cute.folder(options.data_dir).glob("*.tsv")):
        raise AUNetError(f"--data-dir: {options.data_dir} has neither texts in a folder noise nor the files of CUTE")
    documents = _documents(folder, options) if folder.exists() else []
    if folder.exists() and not documents:
        raise AUNetError(f"{folder}: no text has a UTF-8 character in its first {options.max_bytes} bytes")
    asked: list[Question] = []
    if not documents or (options.data_dir / "cute").exists():
        asked = cute.questions(TaskOptions(options.data_dir, options.limit, options.fewshot))
    return robustness(answers, documents, asked, options)


def robustness(
    answers: Answers, documents: Sequence[str], questions: Sequence[Question], options: NoiseOptions
) -> list[TaskResult]:
    """Scores on clean and on noisy documents and prompts, with what is kept, for every kind and rate that leaves text.

    Bits per byte are of the bytes alone, without the ends of documents. Choices and cues of questions stay clean.
    """
    results = _texts(answers, documents, options) if documents else []
    return results + (_questions(answers, questions, options) if questions else [])


def _documents(folder: Path, options: NoiseOptions) -> list[str]:
    with closing(files_documents([folder], options.text_field, options.problems)) as found:
        cut = (_cut(path, data, options.max_bytes) for path, data in found)
        return list(islice((text for text in cut if text), options.limit))


def _cut(path: object, data: bytes, most: int) -> str:
    """The characters that lie in the first bytes; AUNetError for what is no text."""
    try:
        return getincrementaldecoder("utf-8")().decode(data[:most])  # one that is cut is left out
    except UnicodeDecodeError:
        raise AUNetError(f"{path} is not UTF-8, and noise works on characters; convert it first") from None


def _texts(answers: Answers, documents: Sequence[str], options: NoiseOptions) -> list[TaskResult]:
    clean_2N, read = _bits_and_bytes(answers, documents), {HASH: data_hash(documents)}
    results = [_result("noise_text", "bits_per_byte", _bits_per_byte(clean_2N, options), clean_2N, options, read)]
    for kind, rate, seeds in _cases(len(documents), options):
        changed = [noisy(text, kind, rate, seed) for text, seed in zip(documents, seeds, strict=True)]
        if not any(changed):
            continue  # of nothing there is no score
        noisy_2N = _bits_and_bytes(answers, changed)
        name, of = f"noise_text_{kind}_{rate:g}", {"kind": kind, "rate": rate, **read}
        results.append(_result(name, "bits_per_byte", _bits_per_byte(noisy_2N, options), noisy_2N, options, of))
        kept = statistics.ratio_of_ratios(clean_2N, noisy_2N, options.seed)
        results.append(_result(name, "kept", kept, noisy_2N, options, of, average=False))
    return results


def _questions(answers: Answers, questions: Sequence[Question], options: NoiseOptions) -> list[TaskResult]:
    clean_1N = np.array([right(answers, questions)])
    asked = {HASH: data_hash(text for one in questions for text in (one.prompt, one.cue, *one.choices))}
    results = [_result("noise_choice", "accuracy", _accuracy(clean_1N, options), clean_1N, options, asked)]
    for kind, rate, seeds in _cases(len(questions), options):
        changed = [
            replace(one, prompt=noisy(one.prompt, kind, rate, seed)) for one, seed in zip(questions, seeds, strict=True)
        ]
        noisy_1N = np.array([right(answers, changed)])
        name, of = f"noise_choice_{kind}_{rate:g}", {"kind": kind, "rate": rate, **asked}
        results.append(_result(name, "accuracy", _accuracy(noisy_1N, options), noisy_1N, options, of))
        if clean_1N.any():  # of nothing, nothing can be kept
            kept = statistics.ratio_of_sums(noisy_1N[0], clean_1N[0], options.seed)
            results.append(_result(name, "kept", kept, noisy_1N, options, of, average=False))
    return results


def _cases(count: int, options: NoiseOptions) -> list[tuple[str, float, list[int]]]:
    """Kinds and rates, with a seed for each example: the same noise for every model."""
    seeds = [options.seed + i for i in range(count)]
    return [(kind, rate, seeds) for kind, rate in product(options.kinds, options.rates)]


def _bits_and_bytes(answers: Answers, documents: Sequence[str]) -> statistics.Vector:
    found = answers.likelihoods([Continuation(b"", text.encode()) for text in documents])
    return np.array([[one.bits for one in found], [len(text.encode()) for text in documents]], dtype=np.float64)


def _bits_per_byte(bits_2N: statistics.Vector, options: NoiseOptions) -> Interval:
    return statistics.ratio_of_sums(bits_2N[0], bits_2N[1], options.seed)


def _accuracy(right_1N: statistics.Vector, options: NoiseOptions) -> Interval:
    return statistics.mean(right_1N[0].tolist(), options.seed)


def _result(
    name: str,
    metric: str,
    found: Interval,
    scores_KN: statistics.Vector,
    options: NoiseOptions,
    of: Mapping[str, object],
    average: bool = True,
) -> TaskResult:
    """Bits of examples are divided by the mean bytes of an example, so that they average to bits per byte."""
    examples_N = scores_KN[0] / (scores_KN[1].mean() if len(scores_KN) > 1 else 1)
    settings = {"limit": options.limit, "data": options.source, **of}
    if len(scores_KN) == 1:
        settings |= {"fewshot": cute.shots(options)}
    else:
        settings |= {"max_bytes": options.max_bytes, "text_field": options.text_field}
    count = scores_KN.shape[1]
    examples = tuple(examples_N.tolist()) if average else ()
    sizes = tuple(int(size) for size in scores_KN[1]) if average and len(scores_KN) > 1 else ()
    return TaskResult(
        name, metric, found.value, found.low, found.high, count, options.seed, settings, examples, sizes=sizes
    )
