"""The machine a run uses: device, threads, memory, allocator, compiler, and the lock on its directory."""

import ctypes
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from aunet.compiler import require_compiler
from aunet.config import RunConfig, TrainConfig
from aunet.errors import AUNetError, ConfigError, RunFailed, out_of_memory
from aunet.model.aunet import AUNet
from aunet.train.distributed import ALONE, Ranks


def prepare_device(config: TrainConfig, ranks: Ranks = ALONE) -> torch.device:
    """The device of `train.device`, the CPU set up for training; `auto` is CUDA where there is one, else the CPU.

    Of several ranks each has a GPU of its machine to itself: the one with its number, or the only one that SLURM shows
    it (`srun --gpus-per-task=1`), which is number 0 for each.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.count > 1:
        name = "cuda:0" if _shows_one_gpu() else f"cuda:{ranks.local}"
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it has no memory")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError):  # the latter where a device is an extension of torch
        raise ConfigError(f"train.device: {name!r} is not available here; use cpu or auto") from None
    if config.threads:
        torch.set_num_threads(config.threads)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def _shows_one_gpu() -> bool:
    """Whether each process sees a GPU of its own alone; torchrun shows all of them to all."""
    return "LOCAL_WORLD_SIZE" not in os.environ and torch.cuda.device_count() == 1


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of giving them back to the system after every large tensor.

    A training step frees and asks for the same tens of megabytes again and again; without this, half of an elementwise
    operation on a 16 MB tensor is the kernel clearing new pages. Elsewhere than on glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_threshold, 1 << 25)
    mallopt(trim_threshold, (1 << 31) - 1)


def compile_blocks(model: AUNet, device: torch.device) -> None:
    """Compile each block by itself: blocks of one width share their code, and ragged lengths never compile again.

    Mamba-2 blocks run as they are: they look at the lengths of the documents.
    """
    require_compiler(device, "train.compile")
    for block in model.blocks():
        block.compile(dynamic=True)


@contextmanager
def enough_memory(config: RunConfig) -> Iterator[None]:
    """RunFailed, in one line that names what takes less, where memory is too small for what the block does."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (short := out_of_memory(error)):
            raise
        parameters = sum(parameter.numel() for parameter in AUNet.on_meta(config.model).parameters())
        raise RunFailed(
            f"{short}: the model has {parameters:,} parameters; lower train.batch_bytes, raise "
            "train.accumulate, set train.recompute, or make the model smaller (aunet plan says what it needs)"
        ) from None


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep a second run out of the same directory; the system drops the lock of a killed process."""
    with (directory / ".lock").open("w") as file:
        try:
            # Not flock, which the loader workers of a killed process would hold until they notice its death.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AUNetError(f"train.out: another run is writing to {directory}; wait for it or name another") from None
        yield
