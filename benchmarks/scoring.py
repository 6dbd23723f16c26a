"""Multiple choice: examples per second with shared prefixes and batches, against each request alone.

    python benchmarks/scoring.py [FILE.txt] [--requests 2000] [--model aunet2-2m] [--shots 5] [--rounds 5] [--threads 2]

A question is a sentence cut in two, its four answers are ends of sentences, and the same solved questions stand before
all of them, as in MMLU. Without FILE the sentences are of the documentation that Python carries; the model has random
weights, which changes no time. Each round scores all requests together, and then a share of them one by one, each read
from its first byte on; both give the same likelihoods.
"""

import argparse
import platform
import random
import re
import statistics
import time
from pathlib import Path

import torch

from aunet import corpus
from aunet.evals.answers import Continuation, Likelihood, ModelAnswers
from aunet.language_model import LanguageModel
from aunet.presets import load_run

CHOICES = 4


def main() -> None:
    """Print one row of a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--model", default="aunet2-2m")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    session = LanguageModel.random(load_run(arguments.model, []).model, seed=0).session()
    asked = requests(arguments.file, arguments.requests, arguments.shots)
    together, alone = ModelAnswers(session), ModelAnswers(session, batch=1)
    step = 10 * arguments.rounds if len(asked) > 50 * arguments.rounds else arguments.rounds
    rates: list[tuple[float, float]] = []
    for r in range(arguments.rounds):
        started = time.perf_counter()
        found = together.likelihoods(asked)
        between = time.perf_counter()
        single = [alone.likelihoods([one])[0] for one in asked[r::step]]
        ended = time.perf_counter()
        compare(found[r::step], single)
        rates.append((len(asked) / (between - started), len(single) / (ended - between)))
    size = statistics.mean(len(one.prompt) + len(one.text) for one in asked)
    ratios = [ours / theirs for ours, theirs in rates]
    ours, theirs = (statistics.median(rate) / CHOICES for rate in zip(*rates, strict=True))
    print("| model | machine | requests | bytes of one | examples/s | alone | ratio (least to most) |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {arguments.model} | {platform.machine()}, {arguments.threads} threads | {len(asked):,} | {size:,.0f} | "
        f"{ours:.1f} | {theirs:.2f} | {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) |"
    )


def requests(file: str | None, count: int, shots: int) -> list[Continuation]:
    """Questions of four answers each, all behind the same solved ones."""
    text = Path(file).read_text() if file else "\n\n".join(text for _, text in corpus.gather().train)
    sentences = [" ".join(s.split()) for s in re.findall(r"[A-Z][^.?!]{60,160}[.?!]", text)]
    questions = -(-count // CHOICES)
    if len(sentences) < questions + shots:
        raise SystemExit(f"{file}: has {len(sentences)} sentences, {questions + shots} are needed")
    draw = random.Random(0)
    halves = [cut(one) for one in draw.sample(sentences, questions + shots)]
    solved = "".join(f"Begin: {start}\nEnd:{end}\n\n" for start, end in halves[:shots])
    found = []
    for start, end in halves[shots:]:
        ends = [end, *(draw.choice(halves)[1] for _ in range(CHOICES - 1))]
        found += [Continuation(f"{solved}Begin: {start}\nEnd:".encode(), one.encode()) for one in ends]
    return found[:count]


def cut(sentence: str) -> tuple[str, str]:
    """Two halves, the second with the space before it."""
    at = sentence.index(" ", len(sentence) // 2 - 5)
    return sentence[:at], sentence[at:]


def compare(found: list[Likelihood], single: list[Likelihood]) -> None:
    """End where the two ways disagree."""
    worst = max(abs(a.bits - b.bits) for a, b in zip(found, single, strict=True))
    if worst > 1e-2 or any(a.greedy != b.greedy for a, b in zip(found, single, strict=True)):
        raise SystemExit(f"likelihoods differ by {worst} bits")


if __name__ == "__main__":
    main()
