"""From a checkpoint to a model directory, without the run that wrote it."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aunet.config import RunConfig
from aunet.errors import AUNetError
from aunet.mappings import read_mapping, validate
from aunet.model.aunet import AUNet
from aunet.model.directory import CONFIG, RUN, TOKENIZER, save_model, training_facts, validate_saved
from aunet.model.flops import flops_per_byte
from aunet.train import checkpoint
from aunet.train.checkpoint import Checkpoint
from aunet.train.metrics import FILE, read
from aunet.train.storage import Storage, storage_at

TRIES = 3
"""How often a checkpoint is looked for: a run that goes on deletes those before its newest."""
VALID = "valid_bits_per_byte"


@dataclass(frozen=True)
class Exported:
    """What was read and where the model is."""

    source: str
    step: int
    out: Path


def export(place: str, step: int | None, out: Path | None, warn: Callable[[str], None]) -> Exported:
    """Write the model of a checkpoint; every file is checked against the manifest before.

    `place`: a run, the directory or URL that holds its checkpoints, or one of them (`.../step-N`). `step`: None takes
    the newest that is whole, and `warn` is told of each one passed over. `out`: None is `model-step-N` here.

    AUNetError in one line where there is no such checkpoint, it is incomplete or damaged, or `out` has a model already.
    """
    with tempfile.TemporaryDirectory() as scratch:
        storage, named, run = _found(place, Path(scratch))
        if None not in (step, named) and step != named:
            raise AUNetError(f"--step {step}: {place} is the checkpoint of step {named}; leave one of them out")
        for left in reversed(range(TRIES)):
            source = _checkpoint(storage, step if named is None else named, warn)
            target = out or Path(f"model-step-{source.step}")
            if (target / CONFIG).exists():
                raise AUNetError(f"--out: {target} has a model already; name another directory")
            try:
                model = _model(source, Path(scratch))
                break
            except AUNetError:
                if not left or source.step in checkpoint.complete_steps(storage):
                    raise
        try:
            save_model(model, target, _facts(source, run))
        except OSError as error:
            raise AUNetError(f"--out: {target} cannot be written ({error.strerror}); name another directory") from None
    return Exported(str(source), source.step, target)


def _facts(source: Checkpoint, run: Path | None) -> dict[str, str]:
    """What the model card states, as at the end of a run; `run`: its directory, with the metrics, if there is one."""
    state = source.state
    config = validate(RunConfig, state["config"], str(source))
    flops = state.get("units", state["bytes"]) * flops_per_byte(config.model, config.data.seq_len)
    scores = {int(step): score for step, score in state.get("valid", {}).items()}
    if run and (run / FILE).is_file():  # the last step of a run is validated after it is saved
        scores |= {line["step"]: line["valid_bits_per_byte"] for line in read(run / FILE) if VALID in line}
    return training_facts(source.step, state["bytes"], flops, scores.get(source.step))


def _found(place: str, scratch: Path) -> tuple[Storage, int | None, Path | None]:
    """Where the checkpoints are, the step if the place is one of them, and the directory of the run if there is one."""
    root, _, last = place.rstrip("/").rpartition("/")
    number = last.removeprefix("step-")
    if last != number and number.isdecimal():
        storage, step = storage_at(root or ".", scratch), int(number)
    elif (Path(place) / RUN).is_file():
        run = Path(place)
        config = validate(RunConfig, read_mapping(run / RUN), str(run / RUN))
        moved = config.train.model_copy(update={"out": place})
        return storage_at(moved.checkpoints_at, scratch), None, run
    else:
        storage, step = storage_at(place, scratch), None
    run = Path(storage.root).parent
    return storage, step, run if storage.shared and (run / RUN).is_file() else None


def _checkpoint(storage: Storage, step: int | None, warn: Callable[[str], None]) -> Checkpoint:
    if step is None:
        for _ in range(TRIES):
            before = set(storage.steps())
            if newest := checkpoint.newest(storage, warn):
                return newest
            if set(storage.steps()) == before:
                break
        raise AUNetError(f"{storage}: no complete checkpoint there; name a training run, or where its checkpoints are")
    if step not in storage.steps():
        there = ", ".join(map(str, checkpoint.complete_steps(storage))) or "none"
        raise AUNetError(f"{storage.name(step)}: there is no such checkpoint; complete ones: {there}")
    found = checkpoint.at(storage, step)
    if isinstance(found, str):
        raise AUNetError(f"{storage.name(step)}: {found}")
    return found


def _model(source: Checkpoint, scratch: Path) -> AUNet:
    state = source.state
    config = validate_saved(state["config"]["model"], state["aunet"], f"{source}: model")
    if (source.directory / TOKENIZER).is_file():  # it is copied from here into the model directory
        (scratch / TOKENIZER).write_bytes((source.directory / TOKENIZER).read_bytes())
        config = config.model_copy(update={"tokenizer": str(scratch / TOKENIZER)})
    model = AUNet.on_meta(config).to_empty(device="cpu")
    checkpoint.load_tensors(source, checkpoint.training_tensors(model, []))
    return model
