"""Questions with choices, answered by the likelier one."""

from collections.abc import Sequence
from dataclasses import dataclass

from aunet.evals.answers import Answers, Continuation


@dataclass(frozen=True)
class Question:
    """A prompt with choices of which one is right."""

    prompt: str
    choices: tuple[str, ...]
    gold: int
    """Which one."""
    cue: str = ""
    """Follows the prompt, and stays as it is where the prompt is changed."""


def right(answers: Answers, questions: Sequence[Question]) -> list[float]:
    """1 for each question whose right choice has the highest probability by byte, else 0; equal ones count as wrong."""
    asked = [
        Continuation((question.prompt + question.cue).encode(), choice.encode())
        for question in questions
        for choice in question.choices
    ]
    found = iter(answers.likelihoods(asked))
    scores = []
    for question in questions:
        bits = [next(found).bits / max(1, len(choice.encode())) for choice in question.choices]
        others = bits[: question.gold] + bits[question.gold + 1 :]
        scores.append(float(all(bits[question.gold] < other for other in others)))
    return scores
