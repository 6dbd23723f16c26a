"""FLORES-200: translation of the same sentences into and out of many languages (NLLB Team 2022, arXiv 2207.04672).

A prompt shows sentences of `dev` with their translations, the same ones for every sentence of `devtest`, and the model
writes what follows, up to the end of the line:

    eng_Latn: A sentence of dev.
    wol_Latn: Its translation.

    eng_Latn: A sentence of devtest.
    wol_Latn:

Scores are those of sacrebleu over the whole of `devtest`, BLEU with its tokenizer 13a and chrF2; `flores200`, the
sentence pieces of spBLEU, can be named instead, and is fetched by sacrebleu. Intervals draw sentences, the same ones
for all languages of an average, since FLORES is parallel. chrF2 of single sentences is reported too: it has a score for
each sentence, by which two models are compared in pairs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from random import Random
from typing import Any

from aunet.errors import AUNetError, ConfigError, MissingExtra
from aunet.evals import statistics
from aunet.evals.answers import Answers, Writing
from aunet.evals.hub import hub_rows
from aunet.evals.options import TaskOptions
from aunet.evals.results import HASH, TaskResult, data_hash
from aunet.evals.statistics import Interval

HUB = "openlanguagedata/flores_plus"
"""Its successor, which is kept up; asks for an account."""
SHOTS = 4
ENGLISH = "eng_Latn"
FOLDERS = ("flores", "flores200_dataset", ".")


@dataclass(frozen=True)
class FloresOptions(TaskOptions):
    """What is asked. `data_dir` holds `dev/LANGUAGE.dev` and `devtest/LANGUAGE.devtest`, itself or in `flores`.

    `limit` counts sentences; `seed` also chooses those of the prompt.
    """

    languages: tuple[str, ...] = ()
    """By the names of their files, such as fra_Latn; all that are there if none. Of the hub they have to be named."""
    pivot: str | None = None
    """Translated into and out of every language; English (eng_Latn) if it is there, named or not, else the first."""
    tokenizer: str = "13a"
    """Of BLEU: 13a, flores200, char, intl, zh, ..."""
    max_bytes: int = 512
    """Of a translation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_bytes < 1:
            raise ConfigError(f"flores.max_bytes: {self.max_bytes} is not at least 1")


Corpus = dict[str, list[str]]
"""Sentences by language, parallel."""
Score = Callable[[list[Any]], float]
Counts = Sequence[Sequence[int]]
"""What sacrebleu counts in each sentence, of whose sums it makes a score."""
WIDTHS = {"bleu": 10, "chrf": 18}
"""Counts of a sentence: both lengths, n-grams of 1 to 4 that are right and all; those of 1 to 6 of either and both."""


@dataclass(frozen=True)
class Counted:
    """Translations as sacrebleu counts them, with a score of sums of counts for each metric."""

    bleu: Counts
    chrf: Counts
    sentences: tuple[float, ...]
    """chrF2 of each."""


class Metrics:
    """BLEU and chrF2 of sacrebleu, on counts of sentences."""

    def __init__(self, tokenizer: str = "13a") -> None:
        try:
            from sacrebleu.metrics import BLEU, CHRF
        except ImportError:
            raise MissingExtra("sacrebleu", "eval", "scoring translations") from None
        if tokenizer not in BLEU.TOKENIZERS:
            raise ConfigError(f"flores.tokenizer: {tokenizer!r} is none of sacrebleu's: {', '.join(BLEU.TOKENIZERS)}")
        self._tokenizer = tokenizer
        try:
            self._bleu, self._chrf = BLEU(tokenize=tokenizer), CHRF()
        except Exception as error:  # some tokenizers are fetched, others need packages of their own
            reason = str(error).strip().splitlines()[0]
            raise AUNetError(f"flores.tokenizer: no {tokenizer} of sacrebleu here ({reason}); try 13a") from None

    def count(self, written: Sequence[str], right: Sequence[str]) -> Counted:
        """What sacrebleu sums over sentences; all its metrics have this method, though no public one."""
        bleu, chrf = (metric._extract_corpus_statistics(written, [right]) for metric in (self._bleu, self._chrf))
        sentences = tuple(
            self._chrf.sentence_score(*pair).score for pair in zip(written, [[r] for r in right], strict=True)
        )
        return Counted(bleu, chrf, sentences)

    def score(self, metric: str) -> Score:
        """Of the sums of counts of sentences, 0 to 100: `bleu` or `chrf`."""
        compute = {"bleu": self._bleu, "chrf": self._chrf}[metric]._compute_score_from_stats
        return lambda sums: float(compute(sums).score)

    def settings(self) -> dict[str, dict[str, str]]:
        """What results say of each: the signature that sacrebleu wants to be quoted, once something was counted."""
        bleu, chrf = ({"signature": str(metric.get_signature())} for metric in (self._bleu, self._chrf))
        return {"bleu": {"tokenizer": self._tokenizer, **bleu}, "chrf": chrf}


def run(answers: Answers, options: FloresOptions) -> list[TaskResult]:
    """BLEU, chrF2 and chrF2 by sentence for every language and direction, and averages over languages."""
    metrics = Metrics(options.tokenizer)
    dev, devtest = read_corpora(options)
    pivot, *others = devtest
    results = []
    for direction, pairs in (
        (f"to-{pivot}", [(name, pivot) for name in others]),
        (f"from-{pivot}", [(pivot, name) for name in others]),
    ):
        found = [metrics.count(translate(answers, dev, devtest, *pair, options), devtest[pair[1]]) for pair in pairs]
        for name, pair, counted in zip(others, pairs, found, strict=True):
            of = {"languages": [name], "pivot": pivot, HASH: data_hash([*devtest[pair[0]], *devtest[pair[1]]])}
            results += _results(f"flores_{'-'.join(pair)}", [counted], metrics, options, of)
        if len(pairs) > 1:
            parts = [f"flores_{'-'.join(pair)}" for pair in pairs]
            read = data_hash(sentence for sentences in devtest.values() for sentence in sentences)
            of = {"languages": others, "pivot": pivot, "tasks": parts, HASH: read}
            results += _results(f"flores_{direction}", found, metrics, options, of)
    return results


def prompt(shots: Iterable[tuple[str, str]], source: str, names: tuple[str, str]) -> str:
    """Sentences with their translations, and the one to be translated."""
    ours, theirs = names
    solved = (f"{ours}: {left}\n{theirs}: {right}\n\n" for left, right in shots)
    return "".join(solved) + f"{ours}: {source}\n{theirs}:"


def translate(
    answers: Answers, dev: Corpus, devtest: Corpus, source: str, target: str, options: FloresOptions
) -> list[str]:
    """What is written for each sentence of devtest, without spaces around it."""
    shots = [(dev[source][i], dev[target][i]) for i in _shots(len(dev[source]), options)] if dev else []
    asked = [
        Writing(prompt(shots, sentence, (source, target)).encode(), options.max_bytes, (b"\n",))
        for sentence in devtest[source]
    ]
    return [data.decode(errors="replace").strip() for data in answers.writings(asked)]


def read_corpora(options: FloresOptions) -> tuple[Corpus, Corpus]:
    """`dev`, empty where no examples are shown, and `devtest`, with the pivot first; AUNetError for anything amiss."""
    languages = options.languages or tuple(_languages(options))
    directory = _directory(options)
    english = directory is None or ENGLISH in _there(directory, "devtest")
    pivot = options.pivot or (ENGLISH if english else languages[0])
    names = tuple(dict.fromkeys((pivot, *languages)))
    if len(names) < 2:
        raise ConfigError(f"flores.languages: there is none but {pivot}, which the others are translated from and to")
    wanted = _fewshot(options)
    dev = _corpus("dev", names, options) if wanted else {}
    if dev and len(dev[pivot]) < wanted:
        raise ConfigError(f"--fewshot: dev has {len(dev[pivot])} sentences, {wanted} cannot be shown")
    devtest = _corpus("devtest", names, options)
    return dev, {name: sentences[: options.limit] for name, sentences in devtest.items()}


def _results(
    name: str, found: Sequence[Counted], metrics: Metrics, options: FloresOptions, of: Mapping[str, Any]
) -> list[TaskResult]:
    """Of one pair of languages, or of the average over several."""
    sentences = [sum(scores) / len(found) for scores in zip(*(one.sentences for one in found), strict=True)]
    counts = {"bleu": [one.bleu for one in found], "chrf": [one.chrf for one in found]}
    intervals = {metric: _average(parts, metrics.score(metric), options.seed) for metric, parts in counts.items()}
    intervals["chrf_by_sentence"] = statistics.mean(sentences, options.seed)
    settings = {"fewshot": _fewshot(options), "limit": options.limit, "data": options.source, **of}
    settings |= {"max_bytes": options.max_bytes}
    by_metric = metrics.settings()
    return [
        TaskResult(
            name,
            metric,
            score.value,
            score.low,
            score.high,
            len(sentences),
            options.seed,
            {**settings, **by_metric["bleu" if metric == "bleu" else "chrf"]},
            tuple(sentences) if metric == "chrf_by_sentence" else (),
            # Those of an average are those of its parts.
            tuple(map(tuple, counts[metric][0])) if metric in counts and len(found) == 1 else (),
        )
        for metric, score in intervals.items()
    ]


def corpus_difference(metric: str, ours: Sequence[Counts], theirs: Sequence[Counts], seed: int) -> Interval:
    """Our score less theirs, each averaged over languages; the same sentences are drawn for both."""
    average = _average_of(Metrics().score(metric), WIDTHS[metric])

    def less(sums: list[Any]) -> float:
        return average(sums[: len(sums) // 2]) - average(sums[len(sums) // 2 :])

    return statistics.corpus(_side_by_side([*ours, *theirs]), less, seed)


def _average(counts: Sequence[Counts], score: Score, seed: int) -> Interval:
    """The average of a corpus score over languages, whose parallel sentences are drawn together."""
    return statistics.corpus(_side_by_side(counts), _average_of(score, len(counts[0][0])), seed)


def _side_by_side(counts: Sequence[Counts]) -> list[list[int]]:
    return [[value for row in rows for value in row] for rows in zip(*counts, strict=True)]


def _average_of(score: Score, width: int) -> Score:
    def of_all(sums: list[Any]) -> float:
        parts = range(0, len(sums), width)
        return sum(score(sums[at : at + width]) for at in parts) / len(parts)

    return of_all


def _fewshot(options: FloresOptions) -> int:
    return SHOTS if options.fewshot is None else options.fewshot


def _shots(count: int, options: FloresOptions) -> list[int]:
    """Which sentences of dev are shown."""
    return Random(options.seed).sample(range(count), _fewshot(options))  # noqa: S311


def _directory(options: FloresOptions) -> Path | None:
    if options.data_dir is None:
        return None
    found = next((options.data_dir / f for f in FOLDERS if (options.data_dir / f / "devtest").is_dir()), None)
    if found is None:
        raise AUNetError(f"--data-dir: {options.data_dir} has no folder devtest, nor has flores in it")
    return found


def _languages(options: FloresOptions) -> list[str]:
    directory = _directory(options)
    if directory is None:
        raise ConfigError("flores.languages: name those to be read from the hub, such as fra_Latn, or give --data-dir")
    found = _there(directory, "devtest")
    if not found:
        raise AUNetError(f"--data-dir: {directory / 'devtest'} has no file LANGUAGE.devtest")
    return found


def _there(directory: Path, split: str) -> list[str]:
    return sorted(path.stem for path in (directory / split).glob(f"*.{split}"))


def _corpus(split: str, names: Sequence[str], options: FloresOptions) -> Corpus:
    directory = _directory(options)
    corpus = {name: _sentences(split, name, directory) for name in names}
    sizes = {name: len(sentences) for name, sentences in corpus.items()}
    for name, size in sizes.items():
        if size != sizes[names[0]]:
            raise AUNetError(
                f"{split}: {name} has {size} sentences and {names[0]} has {sizes[names[0]]}; lines have to be parallel"
            )
    return corpus


def _sentences(split: str, name: str, directory: Path | None) -> list[str]:
    if directory is None:
        return [str(row["text"]).strip() for row in hub_rows(HUB, split, name)]
    path = directory / split / f"{name}.{split}"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = _there(directory, split)
        near = get_close_matches(name, known, cutoff=0.4) or known[:5]
        raise AUNetError(f"{path} is missing; there are {', '.join(near) or 'no languages'}") from None
    except OSError as error:
        raise AUNetError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise AUNetError(f"{path} is not UTF-8") from None
    sentences = [line.strip() for line in text.rstrip("\n").split("\n")]
    if not all(sentences):
        raise AUNetError(f"{path}, line {sentences.index('') + 1}: no sentence; every line holds one")
    return sentences
