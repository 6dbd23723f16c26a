"""Training state, `step-N/`: tensors in safetensors shards and everything else in JSON.

Tensors go through torch.distributed.checkpoint with its Hugging Face storage, so nothing is ever pickled. A checkpoint
is complete if and only if `manifest.json` is there: it is written last and names every file with size and checksum.
Every rank writes its part of the tensors and the first one the rest; any number of ranks can read them.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
from aunet.train.distributed import ALONE, Ranks, as_part
from aunet.train.storage import Storage

VERSION = 1
MANIFEST, STATE = "manifest.json", "state.json"
BLOCK = 1 << 22
NOTHING: Mapping[str, bytes] = {}

Fingerprints = dict[str, dict[str, Any]]
"""Size and checksum of files, by name."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: the step after which it was taken, the state that is not tensors, and its files."""

    storage: Storage
    step: int
    state: dict[str, Any]

    def __str__(self) -> str:
        return self.storage.name(self.step)

    @property
    def directory(self) -> Path:
        """Where its files are on this machine until its tensors are loaded."""
        return self.storage.fetched(self.step)


def save(
    storage: Storage,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    ranks: Ranks = ALONE,
    attached: Mapping[str, bytes] = NOTHING,
) -> None:
    """Write the checkpoint of a step, with the state and the small files `attached` (by name) of the first rank.

    Raises AUNetError with one line, on all ranks, when the disk of any is full or cannot be written to; what was
    written is removed and other checkpoints are untouched.
    """

    def clear() -> None:
        if ranks.first:  # an incomplete attempt at the same step
            remove(storage, step)

    def complete() -> None:
        if ranks.first:
            first = {STATE: _json({"version": VERSION, "step": step, **state}), **attached}
            for name, content in first.items():
                storage.write(step, name, content)
            files = {name: part[name] for part in parts for name in part}
            files |= {name: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in first.items()}
            storage.write(step, MANIFEST, _json({"version": VERSION, "step": step, "files": files}))

    try:
        ranks.together(clear)
        workspace = ranks.together(lambda: storage.workspace(step, ranks.rank))[ranks.rank]
        _write_tensors(workspace, tensors, ranks)
        parts = ranks.together(lambda: _published(storage, step, workspace, ranks))
        ranks.together(complete)
    except (AUNetError, RuntimeError, CheckpointException) as error:  # DCP wraps the operating system's error
        if ranks.first:
            _forget(storage, step)
        raise AUNetError(f"{storage.name(step)}: cannot be written ({_reason(error)}); {_previous(storage)}") from None
    finally:
        storage.clear(ranks.rank)


def _published(storage: Storage, step: int, workspace: Path, ranks: Ranks) -> Fingerprints:
    """Send off what this rank wrote; DCP names its files by rank."""
    own = sorted(workspace.glob(f"shard-{ranks.rank + 1:05d}-*"))
    fingerprints = {path.name: _fingerprint(path) for path in own}
    storage.publish(step, own)
    return fingerprints


def newest(storage: Storage, warn: Callable[[str], None], ranks: Ranks = ALONE) -> Checkpoint | None:
    """The newest complete checkpoint whose files are what the manifest says; `warn` is told of each one passed over.

    All ranks take the same one, and each checks a part of its files. AUNetError, on all of them, where one cannot read
    what the first can, where a disk fails or a server does not answer: what is damaged is passed over, while what could
    not be looked at may be whole.
    """
    steps = ranks.together(lambda: sorted(storage.steps(), reverse=True) if ranks.first else [])[0]
    for step in steps:
        found = at(storage, step, ranks)
        if isinstance(found, Checkpoint):
            return found
        if ranks.first:
            warn(f"{storage.name(step)}: passed over, {found}")
    return None


def at(storage: Storage, step: int, ranks: Ranks = ALONE) -> Checkpoint | str:
    """The checkpoint of a step, ready to be loaded, or what is wrong with it in the words of one line."""
    files = ranks.together(lambda: _manifest(storage, step) if ranks.first else "")[0]
    if isinstance(files, str):
        return files
    reader = storage.shared or ranks.local == 0

    def brought() -> str:
        if reader:
            storage.fetch(step, files)
        return ""

    def checked() -> str:
        if not storage.fetched(step).is_dir():
            raise AUNetError(
                f"{storage.name(step)}: rank {ranks.rank} cannot read it; train.out and train.checkpoints must be on "
                "a file system that all ranks share, or train.checkpoints a URL"
            )
        names = sorted(files)[ranks.rank :: ranks.count] if storage.shared else list(files) if reader else []
        return next((fault for name in names if (fault := _fault(storage.fetched(step) / name, files[name]))), "")

    ranks.together(brought)
    for fault in ranks.together(checked):
        if fault:
            return fault
    content = ranks.together(lambda: (storage.fetched(step) / STATE).read_bytes())[ranks.rank]
    return Checkpoint(storage, step, json.loads(content))


def load_tensors(checkpoint: Checkpoint, tensors: Mapping[str, Tensor], ranks: Ranks = ALONE) -> None:
    """Fill `tensors` in place and let go of what was fetched; AUNetError where names or shapes are not as saved."""
    _without_warning()
    try:
        reader = HuggingFaceStorageReader(str(checkpoint.directory))
        dcp_load(dict(tensors), storage_reader=reader, no_dist=ranks.count == 1)
    except (Exception, CheckpointException) as error:  # the latter is a BaseException
        raise AUNetError(f"{checkpoint}: cannot be loaded ({_reason(error)})") from None
    ranks.wait()
    checkpoint.storage.release()


def complete_steps(storage: Storage) -> list[int]:
    """Steps whose checkpoint has a manifest, in order."""
    return sorted(step for step, names in storage.steps().items() if MANIFEST in names)


def remove(storage: Storage, step: int) -> None:
    """Delete a checkpoint; the manifest goes first, so that one half deleted is not taken for a complete one."""
    names = storage.steps().get(step)
    if names is not None:
        storage.remove(step, sorted(names, key=lambda name: name != MANIFEST))


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
    _without_warning()
    dcp_save(
        dict(tensors),
        storage_writer=HuggingFaceStorageWriter(str(directory), save_distributed=True),
        process_group=ranks.group,
        no_dist=ranks.count == 1,
    )


def _without_warning() -> None:
    """One process is not a mistake. A filter for good: those of `catch_warnings` belong to all threads at once.

    What cannot be read is an error of one line here, which DCP precedes by a traceback in its log.
    """
    logging.getLogger(dcp_load.__module__).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def _manifest(storage: Storage, step: int) -> Fingerprints | str:
    """What the manifest says of the files, or what is wrong with it."""
    try:
        manifest = json.loads(storage.read(step, MANIFEST))
        if manifest["version"] != VERSION:
            return f"its version is {manifest['version']}, this program reads {VERSION}"
        files = manifest["files"]
        if not all(Path(name).name == name and isinstance(files[name], dict) for name in files) or STATE not in files:
            return f"{MANIFEST} does not name its files"
        return dict(files)
    except FileNotFoundError:
        return f"it is incomplete (no {MANIFEST})"
    except OSError as error:
        raise _unreadable(f"{storage.name(step)}/{MANIFEST}", error) from None
    except (ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({error})"


def _fault(path: Path, expected: Mapping[str, Any]) -> str:
    """What is wrong with a file, or nothing."""
    try:
        if _fingerprint(path) != expected:
            return f"{path.name} is damaged (size or checksum differ from {MANIFEST})"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        raise _unreadable(str(path), error) from None
    return ""


def _unreadable(name: str, error: OSError) -> AUNetError:
    return AUNetError(f"{name}: cannot be read ({error.strerror or error}); see to its disk and run the command again")


def _forget(storage: Storage, step: int) -> None:
    """Remove what is left of a save that failed, as far as that is possible: without a manifest it does no harm."""
    with suppress(AUNetError, OSError):
        remove(storage, step)


def _previous(storage: Storage) -> str:
    try:
        steps = complete_steps(storage)
    except (AUNetError, OSError):
        return "older checkpoints are untouched"
    return f"the newest complete checkpoint is {storage.name(steps[-1])}" if steps else "there is no older checkpoint"


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
