"""A whole training run from its configuration: plan, data, model, resumption, training."""

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from torch.distributed import is_torchelastic_launched

from aunet.bytes import VOCAB_SIZE
from aunet.config import RunConfig
from aunet.data.loader import Loader
from aunet.data.mixing import scarce
from aunet.data.problems import Problems
from aunet.errors import ConfigError
from aunet.files import make_directory, write_json
from aunet.model.directory import RUN, keep_tokenizer
from aunet.splitting import splitter
from aunet.train.distributed import check, find_ranks, joined
from aunet.train.loop import Outcome, Trainer, Validate
from aunet.train.measures import peak_rate
from aunet.train.metrics import Metrics
from aunet.train.ngrams import know_ngrams
from aunet.train.plan import make_plan
from aunet.train.profile import tracing
from aunet.train.progress import TrainingProgress
from aunet.train.resumption import find_checkpoint, note_saved
from aunet.train.runtime import enough_memory, locked, prepare_device
from aunet.train.saving import Saver, policy
from aunet.train.stop import stop_on_signals
from aunet.train.storage import open_storage
from aunet.train.watch import watching
from aunet.vocabulary import vocabulary

MakeValidate = Callable[[RunConfig, Problems], Validate | None]
"""What scores the held-out documents of a configuration; None where there are none. Scoring builds on inference.

What of the documents can't be used is counted in the second argument."""


@dataclass(frozen=True)
class Finished:
    """How a run ended, and the exit code that tells it: 0 complete, 143 or 130 stopped by a signal."""

    outcome: Outcome
    exit_code: int


def run_training(
    config: RunConfig,
    make_validate: MakeValidate,
    console: Console,
    seconds: float = math.inf,
    patient: bool = False,
) -> Finished:
    """Train, or continue the run in `train.out`, for at most `seconds`; AUNetError on anything that cannot be used.

    `patient`: a second signal is no reason to give up the step, as where who started this process passes signals on.
    One of several processes where `torchrun` or SLURM started them; the first of them writes what is not a checkpoint.
    """
    if config.model.unit == "token" and not config.model.tokenizer:
        raise ConfigError(
            f"model.tokenizer: bytes have {VOCAB_SIZE} ids, this model has {config.model.vocab_size}; give the "
            "tokenizer.json of its tokens (aunet tokenizer train makes one); aunet info works without"
        )
    # Not of the configuration's own checks: those of older checkpoints, which are read too, may say so.
    if config.train.keep_best and not config.data.valid:
        raise ConfigError("train.keep_best: the best are those that score best on held-out text; give data.valid")
    words = vocabulary(config.model)
    plan = make_plan(config)
    ranks = find_ranks()
    check(config, ranks, plan.rows_per_step)
    console = console if ranks.first else Console(quiet=True)
    out = Path(config.train.out)
    make_directory(out, "train.out")
    storage = open_storage(config.train)
    device = prepare_device(config.train, ranks)
    held_out = Problems()
    validate = make_validate(config, held_out)
    rule = splitter(config.model.splitter)
    with (
        enough_memory(config),
        locked(out) if ranks.first else nullcontext(),
        joined(ranks, device) as store,
        watching(ranks, store, config.train.stall_timeout) as watch,
        Loader(config.data, rule, vocabulary=words, share=ranks.share) as loader,
        stop_on_signals(seconds, patient or ranks.count > 1 or is_torchelastic_launched()) as stop,
    ):
        progress_lines = [f"held-out text: {line}" for line in held_out.lines()]
        progress_lines += scarce(config.data, loader.shares, plan.steps * plan.rows_per_step)
        if config.train.valid_every and not validate:
            progress_lines.append("train.valid_every: nothing is validated, for there is no data.valid")
        found = find_checkpoint(storage, out, progress_lines.append, ranks)
        ranks.together(storage.try_out)  # rather than at the first save, hours later
        trainer = Trainer(config, plan, loader, device, ranks, watch)
        if found:
            trainer.resume(found)
            left = found.step < plan.steps
            progress_lines.append(
                f"resuming after step {found.step} from {found}"
                if left
                else f"complete: {found} is after step {found.step} of {plan.steps}; a longer run goes on from there"
            )
        elif config.train.init_from:
            trainer.start_from(Path(config.train.init_from))
            progress_lines.append(f"starting from the weights of {config.train.init_from}")
        else:
            know_ngrams(trainer.model, config, ranks, progress_lines.append)
        metrics: Metrics | None = None
        if ranks.first:
            # From here on the run has a tokenizer of its own, whatever becomes of the file.
            trainer.model.config = keep_tokenizer(config.model, out)
            write_json(out / RUN, json.loads(config.model_dump_json()))
            metrics = Metrics(out, config, trainer.step)
            trainer.peak = peak_rate(out, device, config.train.precision)
        progress = TrainingProgress(console, plan.steps, trainer.step)
        try:
            for line in progress_lines:
                progress.say(line)
            with (
                tracing(config.train.profile, trainer.model, out, ranks, progress.say) as marking,
                Saver(storage, policy(config.train), ranks, partial(note_saved, out, storage)) as saver,
            ):
                trainer.mark, trainer.after_step = marking
                outcome = trainer.run(validate, metrics, progress, stop, saver)
        finally:
            progress.close()
            if metrics:
                metrics.close()
        if outcome.stopped:
            last = f"stopped after step {outcome.step} of {plan.steps}, saved in {storage}"
            progress.say(f"{last}; run the same command again to resume")
        else:
            read, share = f"{trainer.units:,} {config.model.unit}s", trainer.units / plan.bytes
            progress.say(f"read {read}, {share:.0%} of the {plan.bytes:,} that its rows have room for")
        return Finished(outcome, stop.exit_code if outcome.stopped else 0)
