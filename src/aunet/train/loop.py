"""The training loop, top to bottom.

rows -> micro-batches -> forward and backward -> clip -> optimizers -> metrics -> now and then validation and a
checkpoint. Of several ranks each has its share of the rows; the loss is the mean over the positions of all of them.
"""

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import aunet
from aunet.config import RunConfig
from aunet.data.batch import Batch, collate
from aunet.data.held_out import identity
from aunet.data.loader import Loader
from aunet.errors import AUNetError
from aunet.mappings import validate
from aunet.model.aunet import AUNet
from aunet.model.directory import TOKENIZER, load_config, save_model, stored_weights, training_facts
from aunet.model.flops import stage_lengths, useful_flops, useful_flops_per_byte
from aunet.train import checkpoint
from aunet.train.distributed import ALONE, Ranks, load_whole, place, shard, synchronise, whole
from aunet.train.guard import Guard
from aunet.train.measures import Interval, gradient_norms
from aunet.train.metrics import HELD_OUT, Metrics
from aunet.train.optim import build_optimizers, clip_gradients, take_step
from aunet.train.plan import Plan, learning_rate
from aunet.train.profile import Mark, unmarked
from aunet.train.progress import TrainingProgress
from aunet.train.runtime import compile_blocks
from aunet.train.saving import Saver
from aunet.train.stop import Stop
from aunet.train.watch import Watch
from aunet.vocabulary import vocabulary

Validate = Callable[[AUNet], Mapping[str, float]]
"""Scores the held-out documents: at least `bits_per_byte`."""

FIXED_ON_RESUME = (
    "model",
    "data.seed",
    "train.seed",
    "train.init",
    "train.optimizer",
    "train.betas",
    "train.weight_decay",
    "train.lookup_lr",
    "train.head_eps",
    "train.stage_lr",
    "train.clip",
)
"""Settings that a resumed run must share with its checkpoint, beside what the loader checks."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    stopped: bool
    """True when a signal or the end of its time came before its last step."""
    valid: Mapping[str, float] | None
    """The validation of these weights, if there was one."""
    seconds: float
    """Time spent in steps, over all resumptions."""


class Trainer:
    """Everything a run consists of. `step` counts the finished optimizer steps."""

    def __init__(
        self,
        config: RunConfig,
        plan: Plan,
        loader: Loader,
        device: torch.device,
        ranks: Ranks = ALONE,
        watch: Watch | None = None,
    ) -> None:
        self.config, self.plan, self.loader, self.device, self.ranks = config, plan, loader, device, ranks
        self.watch = watch or Watch()
        self.out = Path(config.train.out)
        self.model = AUNet.on_meta(config.model)
        shard(self.model, ranks, config.train, device)
        self.model.to_empty(device=device)
        self.model.initialise(config.train.seed, config.train.init, place)
        self.model.recompute(config.train.recompute)
        self.optimizers = build_optimizers(self.model, config.train)
        checkpoint.materialise(self.optimizers)
        self.step, self.units, self.bytes, self.useful_flops, self.seconds = 0, 0, 0, 0.0, 0.0
        """Finished steps, ids of text read, the bytes they stand for, FLOPs (of all ranks), seconds spent in steps."""
        self.held_out = identity(config.data)
        self.scores: dict[int, float] = {}
        """Bits per byte on this held-out text of the steps that were validated."""
        self.saved_step = -1
        self.interval = Interval()
        self.peak: float | None = None
        """FLOP/s of a matrix product on this device, where it was measured."""
        self.mark: Mark = unmarked
        self.after_step: Callable[[], None] = lambda: None
        """What names the parts of a step, and what follows one, while a run is traced."""
        self.guard = Guard(config.train, device)

    def start_from(self, directory: Path) -> None:
        """Take the weights of a model directory (fine-tuning); AUNetError that names what differs from this model.

        The optimizer, the schedule and the data begin anew. The contraction of a stage is what a text is expected to
        give, not a part of the model, and may differ.
        """
        configs = load_config(directory), self.config.model
        theirs, ours = (
            config.model_dump(mode="json", exclude={"stages": {"__all__": {"contraction"}}}) for config in configs
        )
        # The place of a tokenizer says nothing; what is in it does.
        theirs["tokenizer"], ours["tokenizer"] = vocabulary(configs[0]).digest, self.loader.vocabulary.digest
        if theirs != ours:
            change = _difference("model", theirs, ours).replace("the checkpoint", str(directory))
            raise AUNetError(f"train.init_from: {change}; leave the section `model` out to take the model's own")
        load_whole(self.model, stored_weights(directory, self.model))

    def resume(self, found: checkpoint.Checkpoint) -> None:
        """Continue after a checkpoint; raises AUNetError that names a setting which has changed."""
        # Settings that the version which saved it did not have yet are filled in.
        configs = validate(RunConfig, found.state["config"], str(found)), self.config
        saved, ours = (config.model_dump(mode="json", exclude={"model": {"tokenizer"}}) for config in configs)
        for key in FIXED_ON_RESUME:
            then, now = _at(saved, key), _at(ours, key)
            if then != now:
                change = _difference(key, then, now)
                raise AUNetError(f"cannot resume {found}: {change}; restore it or name another train.out")
        if found.state["rows_per_step"] != self.plan.rows_per_step:
            raise AUNetError(
                f"cannot resume {found}: a step has {self.plan.rows_per_step} rows now and had "
                f"{found.state['rows_per_step']}; restore train.batch_bytes or name another train.out"
            )
        self.loader.load_state_dict(found.state["loader"])
        checkpoint.load_tensors(found, checkpoint.training_tensors(self.model, self.optimizers), self.ranks)
        self.step, self.bytes, self.seconds = found.step, found.state["bytes"], found.state["seconds"]
        self.units = found.state.get("units", self.bytes)  # older checkpoints are of models over bytes
        # A checkpoint from before this was counted has an estimate, by the contraction that the configuration states.
        estimate = self.units * useful_flops_per_byte(self.config.model, self.config.data.seq_len)
        self.useful_flops = found.state.get("useful_flops", estimate)
        if found.state.get(HELD_OUT, self.held_out) == self.held_out:  # older checkpoints do not say
            self.scores = {int(step): score for step, score in found.state.get("valid", {}).items()}
        if "guard" in found.state:
            self.guard.load_state_dict(found.state["guard"])
        self.saved_step = found.step

    def run(
        self, validate: Validate | None, metrics: Metrics | None, progress: TrainingProgress, stop: Stop, saver: Saver
    ) -> Outcome:
        """Train to the end of the plan or to a signal; either way the save of the last step is begun.

        `metrics`: None on all ranks but the first, which also validates and writes the model.
        """
        settings = self.config.train
        if settings.compile:
            compile_blocks(self.model, self.device)
        if metrics:
            self.scores |= metrics.scores()
        told: dict[str, int] = {}
        _, skipped = self._check_health()
        due = False
        while self.step < self.plan.steps and not stop.agreed(self.ranks):
            started, logged = time.perf_counter(), self._is_logged(self.step + 1)
            values = self.train_step()
            if logged:
                # Which waits for the device, so that its work is in the time.
                already, (_, skipped) = skipped, self._check_health()
            took = time.perf_counter() - started
            self.seconds += took
            self.interval.seconds += took
            self.after_step()
            if logged:
                if skipped > already:
                    progress.say(f"step {self.step}: updates skipped: {skipped - already} ({skipped} in all)")
                line = self._report(values) | {"skipped": skipped}
                if metrics:
                    metrics.write(self.step, _finite(line))
                progress.update(self.step, line["train_bits_per_byte"], line["bytes_per_second"])
            for text in (*self.loader.problems.news(told), *self.loader.take_restarts()):
                progress.say(text)
            if validate and settings.valid_every and self.step % settings.valid_every == 0:
                model = self._whole()
                if model and metrics:
                    self._validate(model, validate, metrics, progress)
                del model  # of several ranks it is a whole copy, on the device by now
            saver.check()
            due = due or self.step % settings.checkpoint_every == 0
            # After a step that was not finite it waits for a better one: the weights themselves may be to blame.
            if due and self._check_health()[0]:
                self.save(saver)
                due = False
        for text in self.loader.problems.news(told, last=True):
            progress.say(text)
        stopped = self.step < self.plan.steps
        self._check_health(last=not stopped)
        self.save(saver)
        model = self._whole()
        if model is None or metrics is None:
            return Outcome(self.step, stopped, None, self.seconds)
        valid: Mapping[str, float] | None = metrics.validated(self.step)
        if valid is None and validate and not stopped:
            valid = self._validate(model, validate, metrics, progress)
        score = valid["bits_per_byte"] if valid else None
        facts = training_facts(self.step, self.bytes, self.units * self.plan.flops_per_byte, score)
        save_model(model, self.out, facts)
        return Outcome(self.step, stopped, valid, self.seconds)

    def _is_logged(self, step: int) -> bool:
        return step % self.config.train.log_every == 0 or step == self.plan.steps

    def train_step(self) -> dict[str, Any]:
        """One optimizer step; the values it returns may still be on the device."""
        settings = self.config.train
        self.watch.at(self.step + 1, "reading")
        waiting = time.perf_counter()
        with self.mark("data"):
            rows = self.loader.next_rows(self.plan.rows_per_step)
            # Whatever their number of rows, all ranks have as many micro-batches.
            ends = [len(rows) * i // settings.accumulate for i in range(settings.accumulate + 1)]
            batches = [collate(rows[start:stop]) for start, stop in itertools.pairwise(ends)]
        self.interval.waited += time.perf_counter() - waiting
        self.watch.at(self.step + 1, "computing")
        own = [sum(stage) for stage in zip(*(batch.counts for batch in batches), strict=True)]
        counts = [int(count) for count in self.ranks.sums(own)]
        positions = counts[0]
        self.model.train()
        loss = torch.zeros((), device=self.device)
        for batch in batches:
            synchronise(self.model, batch is batches[-1])
            part = self._loss(batch) / positions
            with self.mark("backward"):
                part.backward()
            loss += part.detach()
        loss = self.ranks.sum(loss)
        stage_norms = gradient_norms(self.model) if self._is_logged(self.step + 1) else None
        with self.mark("clip"):
            norm = clip_gradients(self.model.parameters(), settings.clip, self.ranks)
        skip = self.guard.judge(self.step, loss, norm)
        rate = learning_rate(self.plan, self.step)
        with self.mark("optimizer"):
            take_step(self.optimizers, rate, skip)
        self.step += 1
        lengths = [stage_lengths(batch.levels, batch.starts, batch.counts) for batch in batches]
        flops = sum(useful_flops(self.config.model, of_batch) for of_batch in lengths)
        read = sum(batch.bytes for batch in batches), sum(batch.units for batch in batches)
        step_bytes, step_units, step_flops = self.ranks.sums([*read, flops])
        self.bytes += int(step_bytes)
        self.units += int(step_units)
        self.useful_flops += step_flops
        self.interval.bytes += read[0]
        self.interval.useful_flops += step_flops
        return {
            "loss": loss,
            "grad_norm": norm,
            "stage_grad_norm": stage_norms,
            "lr": rate,
            "positions": positions,
            "step_bytes": int(step_bytes),
            "contraction": [positions / count for count in counts],
        }

    def _loss(self, batch: Batch) -> Tensor:
        # Rounded up, so that kernels that are compiled or captured for a length see few of them.
        longest = 1 << (int(batch.starts.diff().max()) - 1).bit_length()
        ids, targets, levels, starts = (self._sent(x) for x in (batch.ids, batch.targets, batch.levels, batch.starts))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.train.precision == "bf16"):
            return self.model.loss(ids, targets, levels, starts, batch.counts, longest)

    def _sent(self, x: Tensor) -> Tensor:
        """On the device. From memory that is not pinned, CUDA copies when all that it was asked for before is done."""
        return (x.pin_memory() if self.device.type == "cuda" else x).to(self.device, non_blocking=True)

    def _report(self, values: Mapping[str, Any]) -> dict[str, Any]:
        line: dict[str, Any] = {
            name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()
        }
        rate = self.bytes / max(self.seconds, 1e-9)
        flops = self.units * self.plan.flops_per_byte
        # Rows cut documents, so this is what training sees, not the bits per byte of documents.
        line["train_bits_per_byte"] = line["loss"] * line["positions"] / math.log(2) / line["step_bytes"]
        counted = {"units": self.units, "bytes": self.bytes, "paper_flops": flops, "useful_flops": self.useful_flops}
        measured = self.interval.report(self.ranks, self.device, self.peak)
        self.interval = Interval()
        return {**line, **counted, "bytes_per_second": rate, **measured, "seconds": self.seconds}

    def _whole(self) -> AUNet | None:
        return whole(self.model, self.ranks)

    def _validate(
        self, model: AUNet, validate: Validate, metrics: Metrics, progress: TrainingProgress
    ) -> Mapping[str, float]:
        self.watch.at(self.step, "validating")
        model.eval()
        valid = validate(model.to(self.device))
        metrics.write(self.step, {f"valid_{name}": value for name, value in valid.items()})
        self.scores[self.step] = valid["bits_per_byte"]
        progress.say(f"step {self.step}: {valid['bits_per_byte']:.4f} bits per byte on held-out text")
        return valid

    def save(self, saver: Saver) -> None:
        """Begin to write a checkpoint of the finished step, unless there is one already."""
        if self.saved_step == self.step:
            return
        self.watch.at(self.step, "saving")
        state = {
            "aunet": aunet.__version__,
            "config": json.loads(self.config.model_dump_json()),
            "rows_per_step": self.plan.rows_per_step,
            "units": self.units,
            "bytes": self.bytes,
            "useful_flops": self.useful_flops,
            "seconds": self.seconds,
            "valid": dict(self.scores),  # a copy: it is written beside the next steps and their validations
            HELD_OUT: self.held_out,
            "loader": self.loader.state_dict(),
            "guard": self.guard.state_dict(),
        }
        tensors = checkpoint.training_tensors(self.model, self.optimizers)
        path = self.model.config.tokenizer
        tokenizer = {TOKENIZER: Path(path).read_bytes()} if path and self.ranks.first else {}
        saver.begin(self.step, tensors, state, tokenizer, self.scores)
        self.saved_step = self.step

    def _check_health(self, last: bool = False) -> tuple[bool, int]:
        """Whether the last step was finite, and how many updates were skipped so far; RunFailed if too many."""
        where = f"resume from {self.config.train.checkpoints_at}" if self.saved_step > 0 else "start again"
        return self.guard.check(self.step, f"lower train.lr (now {self.plan.lr:g}) and {where}", last)


def _finite(line: Mapping[str, Any]) -> dict[str, Any]:
    """Without the numbers that JSON has no form for, which a step that was skipped may have."""
    numbers = {name: value if isinstance(value, list) else [value] for name, value in line.items()}
    return {
        name: line[name]
        for name, values in numbers.items()
        if all(math.isfinite(value) for value in values if isinstance(value, float))
    }


def _at(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        found = found[part]
    return json.loads(json.dumps(found))


def _difference(key: str, then: Any, now: Any) -> str:
    """The first place where two settings differ, by its dotted key."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in now:
            if then.get(name) != now[name]:
                return _difference(f"{key}.{name}", then.get(name), now[name])
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for i, (a, b) in enumerate(zip(then, now, strict=True)):
            if a != b:
                return _difference(f"{key}.{i}", a, b)
    return f"{key} is {json.dumps(now)}, the checkpoint has {json.dumps(then)}"
