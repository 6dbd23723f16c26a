"""Generation against a BPE Transformer of equal FLOPs per byte, in characters per second.

    python benchmarks/bpe.py [--preset aunet2-23m] [--vocab 32000] [--batches 1 8] [--prompt-bytes 200] [--new 256]
                             [--threads 2] [--repeats 5] [--patience 60] [--json PATH]

Needs the extra `hf`. The tokenizer is a byte-level BPE with GPT-2's pattern, learned on the demo's training text
(`aunet.corpus`); its bytes per token are measured on the held-out text. It has fewer than --vocab entries where no
further pair occurs twice. The Transformer is a `LlamaForCausalLM` with tied embeddings whose paper FLOPs per byte (6
per weight of a matrix, head included, and 6 d S for attention, over the bytes of a token) are those of the preset
within 5%. Its shape: heads of 64, a width near that of the preset's trunk, as many layers as the FLOPs allow. It writes
in Hugging Face `generate`, as people use it, and on the kernels of this library, which tells the architectures apart
from what runs them.

All have random fp32 weights, which take as long as trained ones, read the same held-out prompts with a cache and draw
at temperature 0.8. What they would write is noise, so the rates count time by real text: a token stands for the bytes
that one of the held-out text has on average. On our kernels the real next id is read after each draw, so that AU-Net's
units end as often as in English; in `generate` the draws are read. Characters are bytes by the held-out text's ratio.

The systems are timed in turn, --repeats times, so that what else goes on hits both; ratios are taken turn by turn.
Two threads that wait for each other suffer more from a third process than their code deserves, so a turn is timed anew
while other processes take more than a tenth of a core (known on Linux only), for at most --patience seconds.

First text: from the prompt as text to the first id, one byte here and one token there. All text: until --new bytes, or
the tokens that stand for them. The rates are those between the two. Weights are the parameters, without caches and
without what a system prepares of them for itself.
"""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GenerationConfig, LlamaForCausalLM, StoppingCriteria, StoppingCriteriaList

from aunet import corpus
from aunet.bytes import BOS
from aunet.errors import AUNetError
from aunet.infer.sampling import Sampling
from aunet.infer.session import Session
from aunet.language_model import LanguageModel
from aunet.model.flops import flops_per_byte
from aunet.presets import load_run
from bpe_model import (
    build_llama,
    count_tokens,
    flops_per_token,
    learn_tokenizer,
    matching_shape,
    on_our_kernels,
    weights,
)
from turns import System, Times, measure

TEMPERATURE = 0.8


def main(argv: Sequence[str] | None = None) -> None:
    """Print the systems, then one Markdown table."""
    arguments = parse(argv)
    torch.set_num_threads(arguments.threads)
    try:
        report = compare(arguments)
    except AUNetError as error:
        raise SystemExit(f"benchmarks/bpe.py: {error}") from None
    print(as_markdown(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="aunet2-23m")
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt-bytes", type=int, default=200)
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--patience", type=float, default=60)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    for name, least in {"vocab": 300, "prompt_bytes": 1, "new": 16, "threads": 1, "repeats": 1}.items():
        if getattr(arguments, name) < least:
            parser.error(f"--{name.replace('_', '-')}: {getattr(arguments, name)} is not at least {least}")
    if min(arguments.batches) < 1:
        parser.error(f"--batches: {min(arguments.batches)} is not at least 1")
    if arguments.json and not arguments.json.parent.is_dir():
        parser.error(f"--json: there is no directory {arguments.json.parent}")
    return arguments


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Build the systems and time them; what is printed, as JSON."""
    run, texts = load_run(arguments.preset, []), corpus.gather()
    held_out = "\n\n".join(text for _, text in texts.valid)
    size, needed = len(held_out.encode()), arguments.prompt_bytes + arguments.new
    if max(arguments.batches) * needed > size:
        raise AUNetError(f"--batches: the held-out text has no {max(arguments.batches)} pieces of {needed} bytes")
    tokenizer = learn_tokenizer((text for _, text in texts.train), arguments.vocab)
    tokens = count_tokens(tokenizer, held_out)
    target = flops_per_byte(run.model, run.data.seq_len)
    byte_model = LanguageModel.random(run.model)
    session = byte_model.session()
    token_model = build_llama(
        matching_shape(target * size / tokens, run.data.seq_len * tokens / size, tokenizer, run.model.stages[-1].dim)
    )
    token_session = on_our_kernels(token_model.config).session()
    units = int((byte_model.splitter.levels(held_out.encode()) == byte_model.config.depth).sum())
    config = token_model.config
    deadline = time.monotonic() + arguments.patience
    results = []
    for batch in arguments.batches:
        texts_B = pieces(held_out.encode(), batch, arguments.prompt_bytes, arguments.new)
        new_tokens = max(2, round(arguments.new * tokens / size))
        systems = {
            "aunet": System(
                partial(write, session, [([BOS, *prompt], new) for prompt, new in texts_B]),
                batch,
                batch * len(held_out) / size,
            ),
            "bpe": System(
                partial(write_in_generate, token_model, tokenizer, [prompt for prompt, _ in texts_B], new_tokens),
                batch * size / tokens,
                batch * len(held_out) / tokens,
            ),
            "bpe_kernels": System(
                partial(write, token_session, as_tokens(tokenizer, texts_B, new_tokens)),
                batch * size / tokens,
                batch * len(held_out) / tokens,
            ),
        }
        results.append({"batch": batch, "tokens": new_tokens, **measure(systems, RATIOS, arguments.repeats, deadline)})
    return {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": arguments.threads,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "text": {
            "sha256": texts.sha256,
            "train_bytes": texts.train_bytes,
            "held_out_bytes": size,
            "bytes_per_character": size / len(held_out),
        },
        "aunet": {
            "preset": arguments.preset,
            "kernels": type(session.kernels).__name__,
            "bytes_per_deepest_unit": size / units,
            "flops_per_byte": target,
            **weights(byte_model.network),
        },
        "bpe": {
            "vocab_size": config.vocab_size,
            "kernels": type(token_session.kernels).__name__,
            "bytes_per_token": size / tokens,
            "hidden_size": config.hidden_size,
            "layers": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "ffn_dim": config.intermediate_size,
            "flops_per_byte": flops_per_token(token_model, run.data.seq_len * tokens / size) * tokens / size,
            **weights(token_model),
        },
        "prompt_bytes": arguments.prompt_bytes,
        "new_bytes": arguments.new,
        "repeats": arguments.repeats,
        "results": results,
    }


def as_tokens(
    tokenizer: Tokenizer, texts: Sequence[tuple[bytes, bytes]], new: int
) -> list[tuple[list[int], list[int]]]:
    """Prompts and `new` tokens behind them; a text of longer tokens than most is read once more."""
    found = []
    for prompt, following in texts:
        ids = tokenizer.encode(following.decode(errors="ignore"), add_special_tokens=False).ids
        found.append((tokenizer.encode(prompt.decode(errors="ignore")).ids, [*islice(cycle(ids), new)]))
    return found


def pieces(data: bytes, batch: int, prompt: int, new: int) -> list[tuple[bytes, bytes]]:
    """Prompts and what stands behind them, from all over a text."""
    apart = len(data) // batch
    starts = range(0, batch * apart, apart)
    return [(data[start : start + prompt], data[start + prompt : start + prompt + new]) for start in starts]


RATIOS = {"ratio": ("aunet", "bpe"), "ratio_kernels": ("aunet", "bpe_kernels")}
"""AU-Net over another system, turn by turn."""
NAMES = {
    "aunet": "AU-Net",
    "bpe": "BPE, `generate`",
    "bpe_kernels": "BPE, our kernels",
    "ratio": "AU-Net / BPE, `generate`",
    "ratio_kernels": "AU-Net / BPE, our kernels",
}
"""Of the rows of the table."""


def write(session: Session, texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Times:
    """Read the ids of the prompts; draw an id for every one behind them, but read that one."""
    sampling = Sampling(TEMPERATURE)
    generators = [sampling.generator() for _ in texts]
    times: Times = []
    started = time.perf_counter()
    state = session.start(len(texts))
    logits = [rows[-1] for rows in session.extend(state, [prompt for prompt, _ in texts])]
    for following in zip(*(behind for _, behind in texts), strict=True):
        for row, generator in zip(logits, generators, strict=True):
            sampling.draw(row.numpy(), generator)
        times.append(time.perf_counter() - started)
        logits = list(session.step(state, following))
    return times


def write_in_generate(model: LlamaForCausalLM, tokenizer: Tokenizer, prompts: Sequence[bytes], new: int) -> Times:
    """Continue the prompts by `new` tokens in `generate`."""
    texts = [prompt.decode(errors="ignore") for prompt in prompts]  # without a character that the cut broke
    options = GenerationConfig(
        max_new_tokens=new,
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        pad_token_id=model.config.pad_token_id,
    )
    clock = Clock()
    encodings = tokenizer.encode_batch(texts)
    model.generate(
        torch.tensor([one.ids for one in encodings]),
        attention_mask=torch.tensor([one.attention_mask for one in encodings]),
        generation_config=options,
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    return clock.times


class Clock(StoppingCriteria):
    """Notes when each token was drawn, and never stops."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.times: Times = []

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """One token of every sequence is there."""
        self.times.append(time.perf_counter() - self.started)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def as_markdown(report: dict[str, Any]) -> str:
    """Machine, systems and one row per batch size and system."""
    machine, ours, theirs = report["machine"], report["aunet"], report["bpe"]
    others = [result["cores_of_others"] for result in report["results"]]
    quiet = "" if None in others else f", others took at most {max(others):.2f} cores"
    lines = [
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"transformers {machine['transformers']}{quiet}; {report['prompt_bytes']}-byte prompts, "
        f"{report['new_bytes']} new bytes, median (min-max) of {report['repeats']} turns",
        "",
        f"- AU-Net: {ours['preset']}, {ours['kernels']}, {ours['bytes_per_deepest_unit']:.2f} bytes per deepest unit, "
        + _size(ours),
        f"- BPE: {theirs['vocab_size']} tokens, {theirs['bytes_per_token']:.2f} bytes per token, width "
        f"{theirs['hidden_size']}, {theirs['layers']} layers, FFN {theirs['ffn_dim']}, tied embeddings, "
        f"{theirs['kernels']}, " + _size(theirs),
        "",
        f"| sequences | system | first text | all {report['new_bytes']} bytes | bytes/s | characters/s |",
        "|---|---|---|---|---|---|",
    ]
    formats = {
        "first_text_s": (1e3, " ms"),
        "all_text_s": (1e3, " ms"),
        "bytes_per_s": (1, ""),
        "characters_per_s": (1, ""),
    }
    for result in report["results"]:
        for key, name in NAMES.items():
            scales = dict.fromkeys(formats, (1, "")) if key in RATIOS else formats
            form = ".2f" if key in RATIOS else ",.0f"
            cells = [_cell(result[key][measure], scale, form, unit) for measure, (scale, unit) in scales.items()]
            lines.append(f"| {result['batch']} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _size(system: dict[str, Any]) -> str:
    return (
        f"{system['flops_per_byte'] / 1e6:.1f} MFLOP/byte, {system['parameters'] / 1e6:.1f}M parameters, "
        f"{system['weights_bytes'] / 2**20:.0f} MiB of weights"
    )


def _cell(values: dict[str, float], scale: float, form: str, unit: str) -> str:
    median, low, high = (format(scale * values[key], form) for key in ("median", "min", "max"))
    return f"{median}{unit} ({low}-{high})"


if __name__ == "__main__":
    main()
