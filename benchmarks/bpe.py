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
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, StoppingCriteria, StoppingCriteriaList

from aunet import corpus
from aunet.bytes import BOS
from aunet.config import AUNetConfig
from aunet.errors import AUNetError
from aunet.infer.sampling import Sampling
from aunet.infer.session import Session
from aunet.language_model import LanguageModel
from aunet.model.flops import flops_per_byte
from aunet.presets import load_run

BOS_TOKEN, PADDING = "<bos>", "<pad>"
HEAD_DIM = 64
TOLERANCE = 0.05
"""Largest relative difference of the two models' FLOPs per byte."""
ASPECTS = 32, 128
"""Least and largest width over layers of a sensible shape."""
TEMPERATURE = 0.8
QUIET = 0.1
"""Cores that others may take while a turn is timed."""

Times = list[float]
"""Seconds from the prompts to the first id of every sequence, the second, and so on."""


@dataclass(frozen=True)
class System:
    """What to time, and what one id of every sequence stands for, together."""

    write: Callable[[], Times]
    id_bytes: float
    id_characters: float


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
        results.append({"batch": batch, "tokens": new_tokens, **measure(systems, arguments.repeats, deadline)})
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


def learn_tokenizer(texts: Any, vocab: int) -> Tokenizer:
    """Byte-level BPE that opens a text with BOS and pads on the left."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        special_tokens=[BOS_TOKEN, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    opening = (BOS_TOKEN, tokenizer.token_to_id(BOS_TOKEN))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS_TOKEN} $A", special_tokens=[opening])
    tokenizer.enable_padding(direction="left", pad_id=tokenizer.token_to_id(PADDING), pad_token=PADDING)
    return tokenizer


def count_tokens(tokenizer: Tokenizer, text: str) -> int:
    """Tokens of a text; AUNetError if they do not give it back."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if tokenizer.decode(ids) != text:
        raise AUNetError("the tokenizer does not give the held-out text back, so its rate per byte means nothing")
    return len(ids)


def matching_shape(target: float, tokens: float, tokenizer: Tokenizer, trunk: int) -> LlamaConfig:
    """The shape that spends `target` FLOPs per token, at rows of so many, with the width nearest to the trunk's."""
    for width in sorted(range(HEAD_DIM, 2049, HEAD_DIM), key=lambda width: abs(width - trunk)):
        found = []
        for ffn in range(-(-5 * width // 128) * 64, 3 * width + 1, 64):
            one, two = (flops_per_token(on_meta(shape(tokenizer, width, ffn, n)), tokens) for n in (1, 2))
            layers = 1 + round((target - one) / (two - one))
            difference = abs(one + (layers - 1) * (two - one) - target) / target
            if layers >= 1 and difference <= TOLERANCE and ASPECTS[0] <= width / layers <= ASPECTS[1]:
                found.append((difference, shape(tokenizer, width, ffn, layers)))
        if found:
            return min(found, key=lambda pair: pair[0])[1]
    raise AUNetError(f"--vocab: no sensible shape has {target:.3g} FLOPs per token within {TOLERANCE:.0%}; change it")


def shape(tokenizer: Tokenizer, width: int, ffn: int, layers: int) -> LlamaConfig:
    """A decoder with SwiGLU and as many key/value heads as heads; nothing ends a text."""
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_DIM,
        num_key_value_heads=width // HEAD_DIM,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BOS_TOKEN),
        pad_token_id=tokenizer.token_to_id(PADDING),
        eos_token_id=None,
    )


def on_meta(config: LlamaConfig) -> LlamaForCausalLM:
    """The model without memory for its weights, to count."""
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def build_llama(config: LlamaConfig) -> LlamaForCausalLM:
    """The model with random fp32 weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(config).float().eval()


def on_our_kernels(config: LlamaConfig) -> LanguageModel:
    """A model of this library of the same shape, over as many ids."""
    stage = {"dim": config.hidden_size, "layers": config.num_hidden_layers, "head_dim": HEAD_DIM}
    stage["ffn_dim"] = config.intermediate_size
    values = {"vocab_size": config.vocab_size, "stages": [stage], "tied": True}
    return LanguageModel.random(AUNetConfig.model_validate(values))


def flops_per_token(model: LlamaForCausalLM, tokens: float) -> float:
    """Paper FLOPs, forward and backward, at rows of so many tokens."""
    maps = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    return 6.0 * (maps + model.config.num_hidden_layers * model.config.hidden_size * tokens)


def weights(model: nn.Module) -> dict[str, int]:
    """Number and memory of the parameters; tied ones count once."""
    parameters = list(model.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "weights_bytes": sum(p.numel() * p.element_size() for p in parameters),
    }


def measure(systems: dict[str, System], repeats: int, deadline: float) -> dict[str, Any]:
    """Time the systems in turn; until the deadline, only while little else goes on."""
    for system in systems.values():
        system.write()  # warms up, and compiles what these steps need
    turns: list[dict[str, Rates]] = []
    others: list[float] = []
    while len(turns) < repeats:
        wait_for_quiet(deadline)
        turn, measured = {}, cores_of_others()
        for name in sorted(systems, reverse=bool(len(turns) % 2)):
            turn[name] = Rates.of(systems[name])
        taken = measured()
        if not taken > QUIET or time.monotonic() > deadline:
            turns.append(turn)
            others.append(taken)
    found = {
        name: {measure: spread([getattr(turn[name], measure) for turn in turns]) for measure in MEASURES}
        for name in systems
    }
    for ratio, other in RATIOS.items():
        found[ratio] = {
            measure: spread([getattr(turn["aunet"], measure) / getattr(turn[other], measure) for turn in turns])
            for measure in MEASURES
        }
    return {"cores_of_others": None if math.isnan(sum(others)) else max(0.0, *others), **found}


def wait_for_quiet(deadline: float) -> None:
    """Sleep while other processes are busy, until the deadline at most."""
    while time.monotonic() < deadline:
        measured = cores_of_others()
        time.sleep(0.5)
        if not measured() > QUIET:
            return


def cores_of_others() -> Callable[[], float]:
    """To be called later: the cores that all other processes have used since, on average; not a number if not known."""

    def now() -> tuple[float, float]:
        try:
            user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
        except OSError:
            return time.perf_counter(), math.nan
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy - time.process_time()

    started, before = now()

    def measured() -> float:
        ended, after = now()
        return (after - before) / (ended - started)

    return measured


@dataclass(frozen=True)
class Rates:
    """What one turn of a system says."""

    first_text_s: float
    all_text_s: float
    bytes_per_s: float
    characters_per_s: float

    @classmethod
    def of(cls, system: System) -> "Rates":
        """Time it."""
        times = system.write()
        ids_per_s = (len(times) - 1) / (times[-1] - times[0])
        return cls(times[0], times[-1], ids_per_s * system.id_bytes, ids_per_s * system.id_characters)


RATIOS = {"ratio": "bpe", "ratio_kernels": "bpe_kernels"}
"""AU-Net over another system, turn by turn."""
NAMES = {
    "aunet": "AU-Net",
    "bpe": "BPE, `generate`",
    "bpe_kernels": "BPE, our kernels",
    "ratio": "AU-Net / BPE, `generate`",
    "ratio_kernels": "AU-Net / BPE, our kernels",
}
"""Of the rows of the table."""
MEASURES = [field.name for field in fields(Rates)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


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
