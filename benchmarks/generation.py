"""Generation speed: cached and cascading, one sequence and a batch.

    python benchmarks/generation.py [--model DIR] [--batches 1 8] [--prompt-bytes 200] [--new 256] [--threads 2]

Without --model: the shape of docs/performance.md (dims [128, 512], layers [3, 6], windows [256, 4096], `word1`) with
random weights, which take as long as trained ones. The bytes that are read are real text, so that units end as often as
in English: at every step the next byte of the text is forced, after one was drawn from the logits as generation does.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch

from aunet import corpus
from aunet.bytes import BOS
from aunet.infer.sampling import Sampling
from aunet.infer.session import Session
from aunet.language_model import LanguageModel
from aunet.presets import load_run


def main() -> None:
    """Print one Markdown row per batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt-bytes", type=int, default=200)
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.model:
        model = LanguageModel.load(arguments.model)
    else:
        model = LanguageModel.random(load_run("aunet2-23m", []).model)
    text = "\n\n".join(text for _, text in corpus.gather().train).encode()
    print(f"{platform.processor() or platform.machine()}, {arguments.threads} threads, torch {torch.__version__}\n")
    print("| sequences | prefill of the prompts | bytes/s | per step |\n|---|---|---|---|")
    session = model.session()
    for batch in arguments.batches:
        prefill, seconds = measure(session, text, batch, arguments.prompt_bytes, arguments.new)
        step = statistics.median(seconds)
        rate = batch * len(seconds) / sum(seconds)
        print(f"| {batch} | {prefill * 1e3:.0f} ms | {rate:,.0f} | {step * 1e3:.2f} ms |", flush=True)


def measure(session: Session, text: bytes, batch: int, prompt: int, new: int) -> tuple[float, list[float]]:
    """Seconds of the prefill and of every step."""
    pieces = [text[i * 10_000 : i * 10_000 + prompt + new] for i in range(batch)]
    sampling = Sampling()
    generators = [sampling.generator() for _ in pieces]
    warm = session.start(batch)
    session.extend(warm, [[BOS, *piece[:prompt]] for piece in pieces])
    for i in range(prompt, prompt + new):  # warms up, and compiles what these steps need
        session.step(warm, [piece[i] for piece in pieces])
    started = time.perf_counter()
    state = session.start(batch)
    logits = [rows[-1] for rows in session.extend(state, [[BOS, *piece[:prompt]] for piece in pieces])]
    prefill, seconds = time.perf_counter() - started, []
    for i in range(prompt, prompt + new):
        started = time.perf_counter()
        for row, generator in zip(logits, generators, strict=True):
            sampling.draw(row.numpy(), generator)
        logits = list(session.step(state, [piece[i] for piece in pieces]))
        seconds.append(time.perf_counter() - started)
    return prefill, seconds


if __name__ == "__main__":
    main()
