"""The race: every system of the paper at equal useful FLOPs on the same text, each with its own tuned settings.

    python experiments/race.py tune 1e13 TRAIN... --valid NAME=FILE... [--systems aunet-2 bpe-4k ...] [--points 6]
    python experiments/race.py run 1e13 TRAIN... --valid NAME=FILE... [--systems ...] [--seeds 0 1]

`tune` searches learning rate and batch size of each system at a budget (Sobol points, as `aunet scale sweep` does);
`run` trains it with the best point of that budget; where none was tried there, with what the laws of the points give
if they are of three budgets or more, else with the best of the largest budget below, moved along the paper's laws. A
run that has begun keeps its settings. Ablations take the settings of the system that they change.
Both commands leave one record per run under `experiments/records/race`, go on where they were interrupted, and may run
several times side by side with different systems. Budgets are useful FLOPs, gamma is 4 in Llama 3 tokens.

On a GPU (`--device cuda`) several systems share the card as so many processes; `timeout --signal TERM 500 python ...`
ends a call in time, saves, and the next call goes on where `runs/race` and the records are at hand.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from aunet.config import RunConfig, SourceConfig
from aunet.errors import AUNetError, MissingExtra
from aunet.mappings import validate
from aunet.model.directory import RUN
from aunet.model.flops import useful_flops_per_byte
from aunet.scaling.child import run_in_child
from aunet.scaling.families import FAMILIES
from aunet.scaling.laws import budgets
from aunet.scaling.plan import PAPER_LAWS, Law, ScalePlan, fitted_laws, make_scale_plan, row_length
from aunet.scaling.records import Record, read_record
from aunet.scaling.run import Job, validation_sets
from aunet.scaling.sweep import Sweep, run_sweep
from aunet.scaling.text import NOVEL_CONTRACTION, measured
from aunet.tokenizer import train_file
from aunet.train.stop import stop_on_signals
from systems import SYSTEMS, System, with_lookups

RECORDS = Path(__file__).parent / "records"
RUNS = Path("runs")
RACE = "race"
"""The directory of the race on English, below both, where the settings of all runs are tuned."""
GAMMA = 4.0
SEARCHED_AT = 1e13
LR = (5e-3, 6e-2)
"""At this budget, what a search goes through; at others it is moved along the paper's laws."""
BATCH = (2048.0, 16384.0)
"""Bytes per step, of tokens too: they are divided by the bytes that a token stands for."""
TOKENIZER_BYTES = 3e7
"""Of the training text, on which tokenizers are trained."""
BUDGETS_OF_LAWS = 3
"""From as many on, laws of the points are believed: of two they say which points happened to be near the best."""
LOOKUP_LR = 3.0
"""Relative to the learning rate of the rest, as is the default."""


def main() -> None:
    """Tune or run each system that was asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tune", "run"))
    parser.add_argument("compute", type=float, help="useful FLOPs of a run")
    parser.add_argument("train", nargs="+", help="files or globs of the training text")
    parser.add_argument("--valid", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--systems", nargs="+", default=["aunet-2"], choices=SYSTEMS, metavar="SYSTEM")
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--label", default=RACE, help="directory of runs and records, for another training text")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda; cuda trains in bf16 with compiled blocks")
    arguments = parser.parse_args()
    if arguments.what == "tune" and arguments.label != RACE:
        parser.error(f"--label: settings are tuned in {RACE} alone, for every text; leave it out")
    console = Console()
    valid = validation_sets(arguments.valid)
    for name in arguments.systems:
        system = SYSTEMS[name]
        plan = plan_of(system, arguments.compute, arguments.train, RUNS / arguments.label, console)
        config = config_of(system, plan, arguments.train, arguments.threads, arguments.device, RUNS / arguments.label)
        if arguments.what == "tune":
            tune(system, plan, config, valid, arguments.points, console)
        for seed in arguments.seeds if arguments.what == "run" else ():
            run(system, plan, config, valid, seed, RECORDS / arguments.label, console)


def plan_of(system: System, compute: float, train: list[str], runs: Path, console: Console) -> ScalePlan:
    """Shape and length; a tokenizer is trained where it is missing."""
    path = runs / f"bpe-{system.vocabulary}.json" if system.vocabulary else None
    if path and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        console.print(train_file(train, system.vocabulary, path, "text", TOKENIZER_BYTES, console).line())
    text = measured(row_length(compute), train if path else (), path)
    text = replace(text, contraction=NOVEL_CONTRACTION)  # one shape for all, whatever was looked at
    plan = make_scale_plan(system.family, compute, GAMMA, text)
    model = plan.model.model_copy(update={"upsampling": system.upsampling})
    if system.reshape:
        model = system.reshape(model, FAMILIES[system.family], text)
    flops = useful_flops_per_byte(model, plan.seq_len) / plan.bytes_per_token
    model = with_lookups(model, system.lookups, system.tables)
    return replace(plan, model=model, flops_per_byte=flops, bytes=compute / flops)


def config_of(system: System, plan: ScalePlan, train: list[str], threads: int, device: str, runs: Path) -> RunConfig:
    """A run of the plan; learning rate and batch are those of the laws until they are tuned."""
    settings = plan.settings() | {"model": plan.model}
    settings["data"] |= {"sources": [{"path": path} for path in train], "workers": 1}
    settings["train"] |= {
        "clip": 1.0,
        "lookup_lr": LOOKUP_LR if system.lookups else 1.0,
        "threads": threads,
        "device": device,
        "precision": "bf16" if device == "cuda" else "fp32",
        "compile": device == "cuda" and FAMILIES[system.family].mixer == "attention",
        "log_every": 10,
        "checkpoint_every": 300,
        "keep": 1,
        "out": str(runs),
        **system.train,
    }
    return validate(RunConfig, settings, system.name)


def tune(
    system: System,
    plan: ScalePlan,
    config: RunConfig,
    valid: dict[str, SourceConfig],
    points: int,
    console: Console,
) -> None:
    """Search learning rate and batch size; every point is a record."""
    lr, batch = searched(system, plan.compute)
    sweep = Sweep(
        config=config,
        family=system.name,
        study=f"{system.name}-tune-{budget(plan.compute)}",
        lr=lr,
        batch=(batch[0] / plan.bytes_per_token, batch[1] / plan.bytes_per_token),
        points=points,
        valid=valid,
        records=RECORDS / RACE,
        remove_checkpoints=True,
    )
    if code := run_sweep(sweep, console):
        raise SystemExit(code)


def searched(system: System, compute: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """From where to where a search at a budget goes, of learning rates and of bytes per step."""
    laws = PAPER_LAWS[FAMILIES[system.family].tokens]
    lr, batch = (laws[key](compute) / laws[key](SEARCHED_AT) for key in ("lr", "batch"))
    return (LR[0] * lr, LR[1] * lr), (BATCH[0] * batch, BATCH[1] * batch)


def run(
    system: System,
    plan: ScalePlan,
    config: RunConfig,
    valid: dict[str, SourceConfig],
    seed: int,
    records: Path,
    console: Console,
) -> None:
    """Train with the settings that the search gives for this budget."""
    name = f"{system.name}-{budget(plan.compute)}-seed{seed}"
    record, out = records / f"{name}.json", Path(config.train.out) / name
    best = begun(record, out) or repeated(record, seed) or tuned(system, plan.compute)
    console.print(
        f"{name}: lr {best.lr:.4g}, batch {best.batch:,.0f} {plan.model.unit}s: {best.origin}", soft_wrap=True
    )
    train = config.train.model_copy(
        update={
            "lr": best.lr,
            "batch_bytes": best.batch,
            "seed": seed,
            "out": str(out),
        }
    )
    data = config.data.model_copy(update={"seed": seed})
    job = Job(
        family=system.name,
        config=validate(RunConfig, config.model_copy(update={"train": train, "data": data}).model_dump(), system.name),
        valid=valid,
        record=record,
        remove_checkpoints=True,
    )
    with stop_on_signals() as stop:
        if code := run_in_child(job, stop, lambda: None):
            raise SystemExit(code)


@dataclass(frozen=True)
class Tuned:
    """What the search of a system gives for a budget."""

    lr: float
    batch: float
    """Ids per step."""
    origin: str
    """Where they are from, for people."""


def begun(record: Path, out: Path) -> Tuned | None:
    """What a run took that is over or was interrupted, whatever has been tuned since; None where there is none."""
    if record.exists():
        return _of(read_record(record).config)
    path = out / RUN
    return _of(json.loads(path.read_text())) if path.exists() else None


def repeated(record: Path, seed: int) -> Tuned | None:
    """What another seed of the same run took, so that they differ in nothing else; None where there is none."""
    others = sorted(record.parent.glob(f"{record.stem.removesuffix(str(seed))}*.json"))
    return _of(read_record(others[0]).config) if others else None


def _of(config: Mapping[str, Any]) -> Tuned:
    return Tuned(config["train"]["lr"], config["train"]["batch_bytes"], "as it began")


def tuned(system: System, compute: float) -> Tuned:
    """The best that was searched at this budget, or what was found at others says of it."""
    name = system.tuned_as or system.name
    found = [read_record(path) for path in sorted((RECORDS / RACE).glob(f"{name}-tune-*.json"))]
    found = [record for record in found if record.complete]
    here = [record for record in found if 0.8 < record.planned_flops / compute < 1.25]
    if not here and (laws := _laws(found, name)):
        lr, batch = (float(f"{laws[key](compute):.4g}") for key in ("lr", "batch"))
        return Tuned(lr, batch, f"by the laws of the {len(found)} points of {name}")
    fitting = [record for record in found if record.planned_flops < 1.2 * compute]
    if not fitting:
        raise SystemExit(f"{name}: nothing is tuned at {budget(compute)} FLOPs or below; tune it first")
    largest = max(record.planned_flops for record in fitting)
    near = [record for record in fitting if record.planned_flops > 0.8 * largest]
    best = min(near, key=lambda record: next(iter(record.bits_per_byte.values())))
    origin = f"the best point of {name} at {budget(largest)} FLOPs"
    if here:
        return Tuned(best.lr, best.batch, origin)
    laws = PAPER_LAWS[FAMILIES[system.family].tokens]
    lr, batch = (laws[key](compute) / laws[key](largest) for key in ("lr", "batch"))
    moved = float(f"{best.lr * lr:.4g}"), float(f"{best.batch * batch:.4g}")
    return Tuned(*moved, f"{origin}, moved along the paper's laws")


def _laws(records: Sequence[Record], name: str) -> Mapping[str, Law] | None:
    """Laws of learning rate and batch size, where the records give them."""
    if len(set(budgets([record.planned_flops for record in records]))) < BUDGETS_OF_LAWS:
        return None
    try:
        return fitted_laws(records, name)
    except MissingExtra:
        raise
    except AUNetError:  # points at one budget alone are near the best
        return None


def budget(compute: float) -> str:
    """As names of files have it: 1e13, 1.5e13."""
    return f"{compute:.2g}".replace("e+", "e")


if __name__ == "__main__":
    try:
        main()
    except AUNetError as error:
        raise SystemExit(f"race.py: {error}") from None
