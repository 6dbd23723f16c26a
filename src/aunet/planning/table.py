"""What `aunet plan` shows."""

from collections.abc import Iterator

from rich.table import Table

from aunet.magnitudes import size
from aunet.planning.prediction import USABLE, Choice, Prediction

BLOCKS = ("contract", "expand", "trunk")


def table(found: Prediction) -> Table:
    """A row per stage: what its modules keep of a micro-batch, and what a GPU receives for them in a step."""
    view = Table(box=None, pad_edge=False)
    for name in ("stage", "blocks keep", "rest keeps", "all-gather", "reduce-scatter", "all-reduce"):
        view.add_column(name, justify="right")
    for s, received in enumerate(found.taken.traffic):
        kept = {name: kept for (name, at), kept in found.activations.items() if at == s}
        blocks = sum(kept.get(name, 0) for name in BLOCKS)
        sizes = (blocks, sum(kept.values()) - blocks, received.all_gather, received.reduce_scatter, received.all_reduce)
        view.add_row(str(s + 1), *(size(number) for number in sizes))
    return view


def lines(found: Prediction) -> Iterator[str]:
    """What the table does not hold."""
    taken, unit = found.taken, found.unit
    head = sum(kept for (name, _), kept in found.activations.items() if name == "head")
    yield (
        f"kept: of a micro-batch of {found.rows} rows, without recomputation, of which {size(head)} belong to the "
        "head and the loss; gathered, scattered, summed: what one GPU receives in a step"
    )
    yield f"as configured, {_choice(found.as_given)}: {_memory(found.as_given)}"
    settings = f"take {_choice(taken)}"
    if (taken.copies, taken.recompute) != (found.as_given.copies, found.as_given.recompute):
        settings += f": {_memory(taken)}"
    room = USABLE * found.gpu.memory
    verdict = "fits" if taken.fits else "does not fit: fewer bytes in a step, more train.accumulate or more GPUs"
    yield f"{settings}; {verdict} ({size(room)} of {size(found.gpu.memory)} may be filled)"
    yield (
        f"step: {taken.compute_seconds:.3g} s of products at {found.mfu:.0%} of {found.flops_per_second / 1e12:.3g} "
        f"TFLOP/s ({found.mfu_origin}), {taken.exchange_seconds:.3g} s of exchanges, of which what is shorter hides "
        "behind the other"
    )
    yield (
        f"expected: {found.bytes_per_second:,.0f} {unit}s/s on {found.gpus} {found.gpu.name}, {found.days:.3g} days "
        f"for {found.steps} steps of {found.batch_bytes:,} {unit}s"
    )


def _choice(choice: Choice) -> str:
    again = ",".join("true" if s in choice.recompute else "false" for s in range(1, len(choice.traffic) + 1))
    return f"train.copies={choice.copies}" + (f" 'train.recompute=[{again}]'" if choice.recompute else "")


def _memory(choice: Choice) -> str:
    memory = choice.memory
    return (
        f"{size(memory.total)} at the most ({size(memory.weights)} weights, {size(memory.optimizer)} optimizer, "
        f"{size(memory.gradients)} gradients, {size(memory.gathered)} gathered, {size(memory.activations)} kept for "
        "the backward pass)"
    )
