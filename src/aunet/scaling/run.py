"""One run that leaves one record: train, score the validation sets whole, write.

The same call goes on where it was interrupted, and does nothing once the record is there. Useful FLOPs are counted by
the trainer from the documents that it reads.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.console import Console
from rich.markup import escape

import aunet
from aunet.config import RunConfig, SourceConfig, Strict
from aunet.data.held_out import refuse_trained
from aunet.data.problems import Problems
from aunet.data.sources import files_documents
from aunet.errors import AUNetError, ConfigError, RunFailed, out_of_memory
from aunet.evals.bpb import make_validate, score_documents
from aunet.model.aunet import AUNet
from aunet.model.flops import useful_flops_per_byte
from aunet.scaling.provenance import code, epochs, hardware, hash_of, size_of
from aunet.scaling.records import (
    DocumentScore,
    Record,
    difference,
    name_of,
    portable,
    read_record,
    setting,
    write_record,
)
from aunet.train import metrics
from aunet.train.plan import make_plan
from aunet.train.resumption import forget_checkpoints
from aunet.train.run import run_training
from aunet.train.runtime import prepare_device
from aunet.vocabulary import vocabulary

CURVE_POINTS = 200
TRAIN, TOKENIZER = "train", "tokenizer"
"""What a record calls the text that was read and the tokenizer, beside the names of validation sets."""


def validation_sets(given: Sequence[str], text_field: str = "text") -> dict[str, SourceConfig]:
    """The sets of NAME=PATH each, as `--valid` has them, in order; ConfigError for what is not of this form."""
    found: dict[str, SourceConfig] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise ConfigError(f"--valid: {text!r} is not NAME=PATH; write for instance valid=texts/valid.jsonl")
        if name in (TRAIN, TOKENIZER):
            raise ConfigError(f"--valid: {name} is what a record calls another text; write for instance {name}2={path}")
        if name in found:
            raise ConfigError(f"--valid: two sets have the name {name}; name each of them otherwise")
        found[name] = SourceConfig(path=path, text_field=text_field)
    return found


class Job(Strict):
    """A run to make."""

    family: str = Field(min_length=1)
    config: RunConfig
    valid: dict[str, SourceConfig] = Field(min_length=1, description="validation sets; the first is tuned for")
    record: Path
    remove_checkpoints: bool = Field(default=False, description="once the record is written; the model stays")

    @property
    def out(self) -> Path:
        """The directory of the run."""
        return Path(self.config.train.out)


def record_run(job: Job, console: Console, patient: bool = False) -> int:
    """Train and score; 0 when the record is there, 143 or 130 when a signal stopped it before.

    `patient`: see `run_training`.

    A run that fails, because its loss is not finite or memory is short, leaves a record that says so; AUNetError where
    it cannot begin, or where the record is there and belongs to another run.
    """
    if existing_record(job):
        console.print(f"{job.record} is there", highlight=False, markup=False, soft_wrap=True)
        return 0
    for source in job.valid.values():
        next(files_documents([source.path], source.text_field))  # before hours of training: is it there?
    refuse_trained({f"--valid {name}": source for name, source in job.valid.items()}, job.config.data.sources)
    try:
        finished = run_training(job.config, make_validate, console, patient=patient)
        if finished.exit_code:
            return finished.exit_code
        documents = {name: _score(job, source, console) for name, source in job.valid.items()}
    except RunFailed as error:
        write_unfinished(job, "failed", str(error))
        return 0
    except (MemoryError, RuntimeError) as error:
        if not (short := out_of_memory(error)):
            raise
        write_unfinished(job, "failed", short)
        return 0
    _leave(job, _record(job, "complete", "", documents))
    return 0


def existing_record(job: Job) -> Record | None:
    """The record that the job would write, if it is there; AUNetError if it belongs to another run."""
    if not job.record.exists():
        return None
    found = read_record(job.record)
    there = {"family": found.family, **setting(found.config)}
    here = {"family": job.family, **setting(portable(job.config))}
    # A configuration has the names of files alone; what stands in them is told by their hashes.
    if change := difference(there, here) or difference(found.data_hash, hashes(job.config, job.valid), "data_hash"):
        raise AUNetError(f"{job.record}: is the record of another run: {change}; remove it or name another")
    return found


def hashes(config: RunConfig, valid: Mapping[str, SourceConfig]) -> dict[str, str]:
    """What a run reads, by its content: the training text, the tokenizer if there is one, every validation set."""
    return {
        TRAIN: hash_of(config.data.sources),
        **({TOKENIZER: vocabulary(config.model).digest} if config.model.tokenizer else {}),
        **{name: hash_of([source]) for name, source in valid.items()},
    }


def write_unfinished(job: Job, status: str, reason: str) -> None:
    """The record of a run that will not be continued, with what it had reached."""
    _leave(job, _record(job, status, reason, {}))


def _leave(job: Job, record: Record) -> None:
    """Write the record of a run that has ended, whichever way; its checkpoints are for going on."""
    write_record(job.record, record)
    if job.remove_checkpoints:
        forget_checkpoints(job.out)


def _score(job: Job, source: SourceConfig, console: Console) -> tuple[DocumentScore, ...]:
    """Bits and bytes of every document; rounded to a thousandth of a bit, which nothing can be told from.

    RunFailed where they are not finite, as of a model that its last step has ruined.
    """
    session = aunet.load(job.out, prepare_device(job.config.train)).session()
    problems = Problems()
    with console.status(f"scoring {escape(source.path)}"):
        documents = (data for _, data in files_documents([source.path], source.text_field, problems))
        found = [(round(one.bits, 3), one.bytes) for one in score_documents(session, documents)]
    problems.tell(console)
    if not sum(size for _, size in found):
        raise AUNetError(f"{source.path}: no byte to score; name a validation set with text")
    if not all(math.isfinite(bits) for bits, _ in found):
        lr = make_plan(job.config).lr
        raise RunFailed(f"the bits of {name_of(source.path)} are not finite; lower train.lr (now {lr:g})")
    return tuple(found)


def _record(job: Job, status: str, reason: str, documents: Mapping[str, Sequence[DocumentScore]]) -> Record:
    config, plan = job.config, make_plan(job.config)
    path = job.out / metrics.FILE
    lines = [line for line in metrics.read(path) if "loss" in line] if path.exists() else []
    last = lines[-1] if lines else {}
    steps, read = last.get("step", 0), last.get("bytes", 0)
    values: dict[str, Any] = {
        "version": 1,
        "name": job.record.stem,
        "family": job.family,
        "status": status,
        "reason": reason.replace(config.train.checkpoints_at, "its checkpoints"),  # no path is published
        "seed": config.train.seed,
        "compute_flops": last.get("useful_flops", 0.0),
        "paper_flops": last.get("paper_flops", 0.0),
        "planned_flops": plan.bytes * useful_flops_per_byte(config.model, config.data.seq_len),
        "bits_per_byte": {name: _ratio(scores) for name, scores in documents.items()},
        "documents": documents,
        "parameters": sum(p.numel() for p in AUNet.on_meta(config.model).parameters()),
        "bytes_read": read,
        "epochs": epochs(read, size_of(config.data.sources)),
        "bytes_per_second": last.get("bytes_per_second", 0.0),
        "seconds": last.get("seconds", 0.0),
        "steps": steps,
        "lr": plan.lr,
        "batch": plan.batch_bytes,
        "batch_bytes": read / steps if steps else 0.0,
        "gamma": plan.gamma,
        "config": portable(config),
        "data_hash": hashes(config, job.valid),
        "code": code(),
        "hardware": hardware(prepare_device(config.train)),
        "date": date.today().isoformat(),
        "curve": [
            (line["step"], line["bytes"], round(line["train_bits_per_byte"], 4))
            for line in lines[:: max(1, len(lines) // CURVE_POINTS)]
        ],
    }
    return Record.model_validate(values)


def _ratio(scores: Sequence[DocumentScore]) -> float:
    return sum(bits for bits, _ in scores) / sum(size for _, size in scores)
