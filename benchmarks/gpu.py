"""What needs a CUDA GPU, in one call of a few minutes: correctness against the CPU, no synchronisation, speed.

    python benchmarks/gpu.py [--presets aunet2-23m aunet2-1b] [--bytes 65536] [--steps 10]

1. Logits and gradients of small models of 1 to 3 stages on the GPU, in fp32 and in bf16, against fp32 on the CPU.
2. A forward and backward pass in bf16 with `torch.cuda.set_sync_debug_mode("error")`: any host synchronisation raises.
3. Training speed in bf16, eager and compiled, as bytes/s and as useful FLOPs against the rate of an 8192^3 bf16 product
   measured in the same run, with peak memory.
Prints Markdown as it goes; what fails is told and the rest goes on, and the exit code is 1 then. The text is the
documentation that Python carries.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from io import TextIOWrapper
from pathlib import Path

import torch

from aunet import corpus
from aunet.config import AUNetConfig, DataConfig, SourceConfig, TrainConfig
from aunet.data.batch import Batch, collate
from aunet.data.loader import Loader
from aunet.mappings import validate
from aunet.model.aunet import AUNet
from aunet.model.flops import stage_lengths, useful_flops
from aunet.presets import load_run
from aunet.splitting import splitter
from aunet.train.optim import build_optimizers, clip_gradients, take_step
from aunet.train.runtime import compile_blocks

RULES = ["", "word1", "word1+word2"]


def main() -> None:
    """Run the three parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["aunet2-23m", "aunet2-1b"])
    parser.add_argument("--bytes", type=int, default=65536, help="of one batch")
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU here")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a call that is cut off has told what it knew
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as directory:
        text = corpus.write(Path(directory))[0]
        good = [attempt(rule or "one stage", partial(check_against_cpu, text, rule)) for rule in RULES]
        good.append(attempt("synchronisation", partial(check_synchronisation, text)))
        good += speed(text, arguments.presets, arguments.bytes, arguments.steps)
    sys.exit(not all(good))


def attempt(name: str, action: Callable[[], bool]) -> bool:
    """Whether it ends well; an error is told, and what comes after it goes on."""
    try:
        return action()
    except Exception:
        print(f"- {name}: failed\n\n```\n{traceback.format_exc()}```\n")
        return False


def small_model(rule: str) -> AUNet:
    """A random model in which every parameter takes part."""
    stages = [
        {"dim": dim, "layers": 2, "head_dim": 32, "window": window, "kv_heads": 1}
        for dim, window in zip((64, 96, 128), (64, None, None), strict=True)
    ]
    depth = rule.count("+") + 1 if rule else 0
    config = validate(AUNetConfig, {"splitter": rule, "stages": stages[: depth + 1]}, "benchmark")
    model = AUNet(config)
    model.initialise(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def run(model: AUNet, batch: Batch, device: str, half: bool) -> list[torch.Tensor]:
    """Loss and gradients, in fp32 on the CPU."""
    model = model.to(device)
    model.zero_grad()
    tensors = [x.to(device) for x in (batch.ids, batch.targets, batch.levels, batch.starts)]
    with torch.autocast(device, torch.bfloat16, enabled=half):
        loss = model.loss(*tensors, batch.counts, int(batch.starts.diff().max())) / batch.counts[0]
    loss.backward()
    return [x.detach().float().cpu().clone() for x in (loss, *(p.grad for p in model.parameters()))]


def check_against_cpu(text: Path, rule: str) -> bool:
    """Largest relative difference of loss and gradients, fp32 and bf16."""
    model, batch = small_model(rule), read_batch(text, rule, 2048, 4)
    torch.backends.cuda.matmul.allow_tf32 = False
    expected, good = run(model, batch, "cpu", half=False), True
    for half, bound in ((False, 2e-4), (True, 0.1)):
        found = run(model, batch, "cuda", half)
        worst = max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))
        good &= worst < bound
        print(
            f"- {rule or 'one stage'}, {'bf16' if half else 'fp32'}: differs from the CPU by {worst:.1e}, bound {bound}"
        )
    return good


def check_synchronisation(text: Path) -> bool:
    """A bf16 pass must not wait for the device."""
    model, batch = small_model("word1+word2").cuda(), read_batch(text, "word1+word2", 2048, 4)
    tensors = [x.cuda() for x in (batch.ids, batch.targets, batch.levels, batch.starts)]
    longest = int(batch.starts.diff().max())
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            loss = model.loss(*tensors, batch.counts, longest)
        loss.backward()
    except RuntimeError as error:
        print(f"- synchronises: {error}")
        return False
    finally:
        torch.cuda.set_sync_debug_mode("default")
    print("- no synchronisation inside forward and backward")
    return True


def speed(text: Path, presets: list[str], batch_bytes: int, steps: int) -> list[bool]:
    """Bytes per second and share of the GPU's own rate, per mode and preset; what takes long to compile comes last."""
    print("\n| preset | mode | bytes/s | useful share of an 8192^3 bf16 product | peak memory |\n|---|---|---|---|---|")
    return [
        attempt(f"{name}, {mode}", partial(measure, text, name, mode, batch_bytes, steps))
        for mode in ("eager", "compile")
        for name in presets
    ]


def measure(text: Path, name: str, mode: str, batch_bytes: int, steps: int) -> bool:
    """One row of the table."""
    gc.collect()  # compiled blocks of the model before refer to each other
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    config = load_run(name, []).model
    batch = read_batch(text, config.splitter, 8192, max(1, batch_bytes // 8192))
    flops = useful_flops(config, stage_lengths(batch.levels, batch.starts, batch.counts))
    model = AUNet.on_meta(config).to_empty(device="cuda")
    model.initialise(0)
    if mode == "compile":
        compile_blocks(model, torch.device("cuda"))
    optimizers = build_optimizers(model, TrainConfig())
    seconds = statistics.median([train_step(model, optimizers, batch) for _ in range(steps + 3)][3:])
    memory = torch.cuda.max_memory_allocated() / 2**30
    share = flops / seconds / product_rate(torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16))
    print(f"| {name} | {mode} | {batch.bytes / seconds:,.0f} | {share:.1%} | {memory:.1f} GiB |")
    return True


def train_step(model: AUNet, optimizers: list[torch.optim.Optimizer], batch: Batch) -> float:
    """Seconds of a step."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    tensors = [x.cuda(non_blocking=True) for x in (batch.ids, batch.targets, batch.levels, batch.starts)]
    with torch.autocast("cuda", torch.bfloat16):
        loss = model.loss(*tensors, batch.counts, int(batch.starts.diff().max())) / batch.counts[0]
    loss.backward()
    clip_gradients(model.parameters(), 0.2)
    take_step(optimizers, 1e-4)
    torch.cuda.synchronize()
    return time.perf_counter() - started


def product_rate(square: torch.Tensor) -> float:
    """FLOP/s of the product, the median of five."""
    rates = []
    for _ in range(6):
        torch.cuda.synchronize()
        started = time.perf_counter()
        square @ square
        torch.cuda.synchronize()
        rates.append(2 * square.shape[0] ** 3 / (time.perf_counter() - started))
    return statistics.median(rates[1:])


def read_batch(text: Path, rule: str, seq_len: int, rows: int) -> Batch:
    """Rows of a text."""
    source = SourceConfig(path=str(text))
    with Loader(DataConfig(sources=(source,), seq_len=seq_len, workers=0), splitter(rule)) as loader:
        return collate(loader.next_rows(rows))


if __name__ == "__main__":
    main()
