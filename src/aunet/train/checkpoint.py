"""Training state on disk: `checkpoints/step-N/` with tensors in safetensors shards and everything else in JSON.

Tensors go through torch.distributed.checkpoint with its Hugging Face storage, so nothing is ever pickled. A checkpoint
is complete if and only if `manifest.json` is there: it is written last and names every file with size and checksum.
Every rank writes its part of the tensors and the first one the rest; any number of ranks can read them.
"""

import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from aunet.errors import AUNetError
from aunet.files import flush, write_json
from aunet.train.distributed import ALONE, Ranks, as_part

VERSION = 1
MANIFEST, STATE = "manifest.json", "state.json"
BLOCK = 1 << 22


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its directory, the step after which it was taken, the state that is not tensors."""

    directory: Path
    step: int
    state: dict[str, Any]


def save(
    root: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], keep: int, ranks: Ranks = ALONE
) -> Checkpoint:
    """Write `root/step-N` and drop all but the `keep` newest complete ones.

    Raises AUNetError with one line when the disk is full or cannot be written to; what was written is removed and older
    checkpoints are untouched.
    """
    directory = root / f"step-{step}"
    try:
        if ranks.first:
            if directory.exists():
                shutil.rmtree(directory)  # an incomplete attempt at the same step
            directory.mkdir(parents=True)
        ranks.wait()
        _write_tensors(directory, tensors, ranks)
        if not ranks.first:
            return Checkpoint(directory, step, dict(state))
        write_json(directory / STATE, {"version": VERSION, "step": step, **state})
        files = {path.name: _fingerprint(path) for path in sorted(directory.iterdir())}
        for name in files:
            flush(directory / name)
        write_json(directory / MANIFEST, {"version": VERSION, "step": step, "files": files})
        flush(root)
    except (OSError, RuntimeError, CheckpointException) as error:  # DCP wraps the operating system's error
        if ranks.first:
            shutil.rmtree(directory, ignore_errors=True)
        raise AUNetError(f"{directory}: cannot be written ({_reason(error)}); {_previous(root)}") from None
    for old in sorted(_steps(root), reverse=True)[keep:]:
        shutil.rmtree(root / f"step-{old}", ignore_errors=True)
    return Checkpoint(directory, step, dict(state))


def newest(root: Path, warn: Callable[[str], None], ranks: Ranks = ALONE) -> Checkpoint | None:
    """The newest complete checkpoint whose files are what the manifest says; `warn` is told of each one passed over.

    The first rank looks, and all take what it found; AUNetError where one of them does not see it.
    """
    step = ranks.most(_newest_step(root, warn) if ranks.first else -1)
    if step < 0:
        return None
    directory = root / f"step-{step}"
    try:
        state = json.loads((directory / STATE).read_text(encoding="utf-8"))
    except OSError as error:
        raise AUNetError(
            f"{directory}: rank {ranks.rank} cannot read it ({error.strerror}); train.out must be on a file system "
            "that all ranks share"
        ) from None
    return Checkpoint(directory, step, state)


def _newest_step(root: Path, warn: Callable[[str], None]) -> int:
    """-1 if there is none."""
    for step in sorted(_steps(root, complete=False), reverse=True):
        directory = root / f"step-{step}"
        fault = _fault(directory)
        if fault is None:
            return step
        warn(f"{directory}: passed over, {fault}")
    return -1


def load_tensors(checkpoint: Checkpoint, tensors: Mapping[str, Tensor], ranks: Ranks = ALONE) -> None:
    """Fill `tensors` in place; raises AUNetError where names or shapes differ from what was saved."""
    try:
        with _quiet():
            reader = HuggingFaceStorageReader(str(checkpoint.directory))
            dcp_load(dict(tensors), storage_reader=reader, no_dist=ranks.count == 1)
    except (Exception, CheckpointException) as error:  # the latter is a BaseException
        raise AUNetError(f"{checkpoint.directory}: cannot be loaded ({_reason(error)})") from None


def training_tensors(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """All tensors of a run by name: `model.NAME` and `optimizer.NAME.KEY`; the optimizers' states must exist.

    The tensors are the live ones, so loading into them restores the run.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    states = {parameter: state for optimizer in optimizers for parameter, state in optimizer.state.items()}
    for name, parameter in model.named_parameters():
        for key, value in states.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{key}"] = as_part(tensors[f"model.{name}"], value)
    return tensors


def materialise(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Create the optimizers' states without a change of the parameters, so that they can be loaded into."""
    for optimizer in optimizers:
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            if isinstance(optimizer, torch.optim.Muon):
                optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
                continue
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }


def _write_tensors(directory: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    with _quiet():
        dcp_save(
            dict(tensors),
            storage_writer=HuggingFaceStorageWriter(str(directory), save_distributed=True),
            no_dist=ranks.count == 1,
        )


class _quiet:
    """Hide what DCP says about running in one process, and its traceback before we state the error in one line."""

    def __enter__(self) -> None:
        self._catch = warnings.catch_warnings()
        self._catch.__enter__()
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.disable(logging.NOTSET)
        self._catch.__exit__(None, None, None)


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def _fault(directory: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            return f"its version is {manifest['version']}, this program reads {VERSION}"
        for name, expected in manifest["files"].items():
            if not (directory / name).is_file():
                return f"{name} is missing"
            if _fingerprint(directory / name) != expected:
                return f"{name} is damaged (size or checksum differ from {MANIFEST})"
    except FileNotFoundError:
        return f"it is incomplete (no {MANIFEST})"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    return None


def _steps(root: Path, complete: bool = True) -> Iterator[int]:
    if not root.is_dir():
        return
    for path in root.iterdir():
        number = path.name.removeprefix("step-")
        if path.name != number and number.isdigit() and (not complete or (path / MANIFEST).is_file()):
            yield int(number)


def _previous(root: Path) -> str:
    steps = list(_steps(root))
    return (
        f"the newest complete checkpoint is {root / f'step-{max(steps)}'}" if steps else "there is no older checkpoint"
    )


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, OSError):
        failures = getattr(seen, "failures", None)  # DCP's CheckpointException maps ranks to their exceptions
        inner = next(iter(failures.values()))[0] if failures else seen.__cause__ or seen.__context__
        if inner is None:
            break
        seen = inner
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    return " ".join(str(seen or error).split())[:300]
