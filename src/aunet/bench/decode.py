"""How fast a model writes: first byte and bytes per second, alone and in a batch, through the engine.

With random weights, which take as long as trained ones, the bytes are those of a real text: after each draw, the next
byte of the text is taken instead. So units end as often as they do in the text, and guesses are as good as they are.
"""

import os
import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from aunet import corpus
from aunet.data.problems import Problems
from aunet.data.sources import files_documents
from aunet.errors import ConfigError
from aunet.infer.drafts import Drafts
from aunet.infer.engine import Engine
from aunet.infer.request import Request
from aunet.infer.sampling import Sampling
from aunet.infer.weights import weight_bytes
from aunet.language_model import LanguageModel, require_bytes


@dataclass(frozen=True)
class Along(Sampling):
    """Draws, then takes the next byte of a text."""

    text: bytes = b""

    def generator(self) -> Any:
        """The random numbers, and where in the text we are."""
        return super().generator(), iter(self.text)

    def draw(self, logits_V: Any, generator: Any) -> int:
        """One draw, which costs what it costs, and the next byte."""
        super().draw(logits_V, generator[0])
        return int(next(generator[1]))


@dataclass
class Decoding:
    """What was measured; every list has one number per repetition."""

    batch: int
    first_byte: list[float] = field(default_factory=list)
    """Seconds from the request to its first byte, the slowest of the batch."""
    bytes_per_second: list[float] = field(default_factory=list)
    """Of the whole batch, from the last first byte to the last byte."""
    bytes_per_pass: list[float] = field(default_factory=list)
    """Of a sequence: above 1 by guesses that were right."""


@dataclass(frozen=True)
class Peaks:
    """What the machine reaches in the same run."""

    gflops: float
    """fp32 product of two 2048 x 2048 matrices."""
    gigabytes: float
    """Per second, summing up 256 MiB."""


def text_of(paths: Sequence[str], console: Console) -> bytes:
    """Documents of files, globs or directories (txt, jsonl, parquet); this machine's documentation if there are none.

    `console` shows what was skipped.
    """
    if not paths:
        return "\n\n".join(text for _, text in corpus.gather().train).encode()
    problems = Problems()
    with closing(files_documents(paths, "text", problems)) as documents:
        text = b"\n\n".join(data for _, data in islice(documents, DOCUMENTS))
    problems.tell(console)
    return text


DOCUMENTS = 500
"""Read at most: enough to write along and to learn guesses from."""
APART = 10_000
"""Bytes between the beginnings of the pieces of a batch."""
LEARNED = 4_000_000
"""Bytes behind all pieces that guesses are learned from."""


def measure(
    model: LanguageModel,
    text: bytes,
    batches: Sequence[int],
    prompt: int,
    new: int,
    repetitions: int,
    guesses: int = 0,
) -> tuple[list[Decoding], Peaks]:
    """All batches by turns, so that what else the machine does hits all of them.

    `guesses`: so many bytes at a time, from n-grams of the text behind the pieces that are written; 0: none.
    """
    require_bytes(model.config, "bench decode")
    needed = APART * (max(batches) - 1) + prompt + new
    if len(text) < needed:
        raise ConfigError(
            f"--text: {len(text)} bytes, and {needed} are needed; give more of it, or lower --batch, --prompt-bytes or "
            "--new-bytes"
        )
    found = [Decoding(batch) for batch in batches]
    rates, flows = [], []
    session = model.session()
    for repetition in range(repetitions + 1):
        for decoding in found:
            drafts = None
            if guesses:
                drafts = Drafts()
                drafts.read(text[needed : needed + LEARNED])
            engine = Engine(session, decoding.batch, drafts=drafts, guesses=guesses or 1)
            first, rate = _once(engine, text, decoding.batch, prompt, new)
            if repetition:  # the first one warms up
                decoding.first_byte.append(first)
                decoding.bytes_per_second.append(rate)
                counters = engine.counters
                decoding.bytes_per_pass.append((counters.accepted_bytes + counters.passes) / counters.passes)
        rates.append(_product())
        flows.append(_sum())
    return found, Peaks(max(rates), max(flows))


def _once(engine: Engine, text: bytes, batch: int, prompt: int, new: int) -> tuple[float, float]:
    started = time.perf_counter()
    for i in range(batch):
        piece = text[i * APART : i * APART + prompt + new]
        engine.submit(Request(piece[:prompt], new, Along(text=piece[prompt:])))
    begun: set[int] = set()
    first, written = started, 0
    while engine.busy:
        for event in engine.step():
            if event.data and event.index not in begun:
                begun.add(event.index)
                first, written = time.perf_counter(), 0
            else:
                written += len(event.data)
    return first - started, written / (time.perf_counter() - first)


def _product() -> float:
    a = torch.randn(2048, 2048)
    started = time.perf_counter()
    a @ a
    return float(2 * 2048**3 / (time.perf_counter() - started) / 1e9)


def _sum() -> float:
    a = np.ones(32 << 20, dtype=np.float64)
    tensor = torch.from_numpy(a)
    started = time.perf_counter()
    tensor.sum()
    return float(a.nbytes / (time.perf_counter() - started) / 1e9)


def to_json(found: Sequence[Decoding], peaks: Peaks, model: LanguageModel, prompt: int, new: int) -> dict[str, Any]:
    """As JSON values: medians, and the least and the greatest of the repetitions."""
    values: dict[str, Any] = {}
    for decoding in found:
        rates, firsts = decoding.bytes_per_second, [1e3 * s for s in decoding.first_byte]
        values[f"bytes_per_s_batch_{decoding.batch}"] = statistics.median(rates)
        values[f"bytes_per_s_batch_{decoding.batch}_range"] = [min(rates), max(rates)]
        values[f"first_byte_ms_batch_{decoding.batch}"] = statistics.median(firsts)
        values[f"first_byte_ms_batch_{decoding.batch}_range"] = [min(firsts), max(firsts)]
        values[f"bytes_per_pass_batch_{decoding.batch}"] = statistics.median(decoding.bytes_per_pass)
    return {
        **values,
        "peak_gflops": peaks.gflops,
        "peak_read_gb_per_s": peaks.gigabytes,
        "weight_mb": weight_bytes(model.network) / 1e6,
        "native": model.native,
        "prompt_bytes": prompt,
        "new_bytes": new,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "load_average": os.getloadavg()[0],
    }


def table(values: dict[str, Any], batches: Sequence[int]) -> Table:
    """For people."""
    shown = Table(title="decoding")
    for column in ("sequences", "first byte, ms", "bytes/s", "least to greatest", "bytes a pass"):
        shown.add_column(column, justify="right")
    for batch in batches:
        low, high = values[f"bytes_per_s_batch_{batch}_range"]
        shown.add_row(
            str(batch),
            f"{values[f'first_byte_ms_batch_{batch}']:.1f}",
            f"{values[f'bytes_per_s_batch_{batch}']:,.0f}",
            f"{low:,.0f} to {high:,.0f}",
            f"{values[f'bytes_per_pass_batch_{batch}']:.2f}",
        )
    shown.caption = (
        f"{values['weight_mb']:.0f} MB of weights, {values['threads']} threads; in the same run: "
        f"{values['peak_gflops']:.0f} GFLOP/s, {values['peak_read_gb_per_s']:.0f} GB/s read"
    )
    return shown
