"""Whoever answers, as a model of lm-evaluation-harness; importing this registers the model `aunet` there."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from aunet.errors import AUNetError, ConfigError, MissingExtra
from aunet.evals.answers import Answers, Continuation, Likelihood, ModelAnswers, Writing
from aunet.evals.cache import CachedAnswers, model_digest
from aunet.infer.scoring import BATCH
from aunet.language_model import LanguageModel

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
except ImportError:
    raise MissingExtra("lm_eval", "eval", "evaluation on tasks") from None

BYTES_PER_TOKEN = 4
"""What a token of the harness's limits holds, for every model: those over bytes and over tokens have the same room."""
NEW_TOKENS = 256
"""The harness's limit where a task has none."""


class Asked(Protocol):
    """What the harness calls a request."""

    args: tuple[Any, ...]


class AnswersLM(LM):
    """Whoever answers, as a model of the harness."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self.answers = answers

    def loglikelihood(self, requests: Sequence[Asked], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of a continuation after a context; white space at the end of the context counts with the continuation.

        So do all models of the harness, for the sake of their tokens; here models over bytes too, so that models over
        bytes and over tokens are asked for the same texts.
        """
        return [(found.log, found.greedy) for found in self._likelihoods(moved(*one.args[:2]) for one in requests)]

    def loglikelihood_rolling(self, requests: Sequence[Asked], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, however long they are; the end of the text is not counted, as nowhere in the harness.

        `aunet eval MODEL FILES` counts it: bits per byte there are those of a document, which ends.
        """
        return [found.log for found in self._likelihoods(Continuation(b"", one.args[0].encode()) for one in requests)]

    def generate_until(self, requests: Sequence[Asked], disable_tqdm: bool = False) -> list[str]:
        """The likeliest text, without the stop string; AUNetError for a task that asks for samples."""
        written = self.answers.writings([_writing(*one.args[:2]) for one in requests])
        return [data.decode(errors="replace") for data in written]

    def _likelihoods(self, asked: Iterable[Continuation]) -> list[Likelihood]:
        return self.answers.likelihoods(list(asked))


def moved(context: str, continuation: str) -> Continuation:
    """White space at the end of the context, which goes over to the continuation.

    >>> moved("A: ", "yes")
    Continuation(prompt=b'A:', text=b' yes')
    """
    kept = context.rstrip()
    return Continuation(kept.encode(), (context[len(kept) :] + continuation).encode())


def _writing(context: str, options: dict[str, Any]) -> Writing:
    wanted = normalize_gen_kwargs(options, NEW_TOKENS)
    if wanted["do_sample"] and float(wanted.get("temperature") or 1) > 0:
        raise AUNetError(
            "the task asks for random samples (do_sample), and aunet writes the likeliest text: leave the task out, or "
            "give it generation_kwargs without do_sample"
        )
    stop = tuple(text.encode() for text in wanted["until"] if text)
    return Writing(context.encode(), int(wanted["max_gen_toks"]) * BYTES_PER_TOKEN, stop)


@register_model("aunet")
class AUNetLM(AnswersLM):
    """A model directory: `--model aunet --model_args pretrained=DIR,weights=bf16,cache=answers.sqlite`.

    `batch_size`: requests that are read side by side, which changes no score. The harness gives 1 where nobody chose,
    which is taken for 64, as `auto` is; and a GPU, which is left out where there is none.
    """

    def __init__(
        self,
        pretrained: str | Path = "",
        device: str | None = None,
        weights: str = "fp32",
        native: bool | None = None,
        cache: str | Path | None = None,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
    ) -> None:
        pretrained = str(pretrained)  # the harness makes a number of what looks like one
        if not pretrained:
            raise ConfigError("--model_args: names no model; write pretrained=DIR, a model directory")
        batch = _batch(batch_size)
        there = device if device and (device.split(":")[0] != "cuda" or torch.cuda.is_available()) else "cpu"
        session = LanguageModel.load(pretrained, there, weights, native).session()
        answers: Answers = ModelAnswers(session, min(batch, max_batch_size or batch))
        if cache:
            answers = CachedAnswers(answers, Path(str(cache)), model_digest(Path(pretrained), weights))
        super().__init__(answers)


def _batch(size: int | str) -> int:
    if str(size).startswith("auto") or str(size) == "1":
        return BATCH
    if not str(size).isdecimal():
        raise ConfigError(f"--batch_size: {size} is neither a number nor auto")
    return int(size)
