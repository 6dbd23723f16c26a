"""`train.profile`: a trace of a few steps of every rank, for Perfetto (ui.perfetto.dev) or chrome://tracing.

The ranges carry names: data, backward, clip, optimizer from the loop; of the forward pass the parts of every stage
(`stage 1 contract`, `pool`, `upsample`, `expand`; `trunk`; `head`), by hooks that are there only while a run is traced.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from aunet.files import make_directory
from aunet.model.aunet import AUNet, Stage
from aunet.train.distributed import Ranks

WAIT, WARM_UP, ACTIVE = 2, 1, 3
"""Steps of this process that are left out, that the profiler needs to come to rest, and that are written."""

Mark = Callable[[str], AbstractContextManager[Any]]
"""Names what happens inside the block."""


def unmarked(_: str) -> AbstractContextManager[None]:
    """Where nothing is traced."""
    return nullcontext()


class Trace:
    """Counts steps and writes `rank-N.json.gz` when it has seen enough, or what there is when the run ends before."""

    def __init__(self, model: AUNet, directory: Path, ranks: Ranks, say: Callable[[str], None]) -> None:
        self._path = directory / f"rank-{ranks.rank}.json.gz"
        self._say, self._left = say, WAIT + WARM_UP + ACTIVE
        self._hooks = _name_parts(model)
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        steps = schedule(wait=WAIT, warmup=WARM_UP, active=ACTIVE, repeat=1)
        self._profile = profile(activities=activities, schedule=steps, on_trace_ready=self._write)
        self._profile.start()

    def step(self) -> None:
        """A step is done."""
        if self._left:
            self._left -= 1
            self._profile.step()
            if not self._left:
                self.close()

    def close(self) -> None:
        """End the trace, if it has not ended."""
        self._left = 0
        if self._hooks:
            for hook in self._hooks:
                hook.remove()
            self._hooks = []
            self._profile.stop()

    def _write(self, done: Any) -> None:
        done.export_chrome_trace(str(self._path))
        self._say(f"trace of {ACTIVE} steps at most: {self._path} (open it at ui.perfetto.dev)")


@contextmanager
def tracing(
    on: bool, model: AUNet, out: Path, ranks: Ranks, say: Callable[[str], None]
) -> Iterator[tuple[Mark, Callable[[], None]]]:
    """What names the parts of a step, and what to call after each; both do nothing where `on` is False."""
    if not on:
        yield unmarked, lambda: None
        return
    make_directory(out / "profile", "train.out")
    trace = Trace(model, out / "profile", ranks, say)
    try:
        yield record_function, trace.step
    finally:
        trace.close()


def _name_parts(model: AUNet) -> list[Any]:
    """Hooks that open a range before the first module of a part and close it behind the last."""
    spans: list[tuple[str, nn.Module, nn.Module]] = [("embedding", model.embedding, model.embedding)]
    for s, module in enumerate(model.stages, start=1):
        stage = cast(Stage, module)
        for name, blocks in (("contract", stage.contract), ("expand", stage.expand)):
            if len(blocks):
                spans.append((f"stage {s} {name}", blocks[0], blocks[-1]))
        spans.append((f"stage {s} pool", stage.pool, stage.pool))
        spans.append((f"stage {s} upsample", cast(nn.Module, stage.upsample), cast(nn.Module, stage.upsample)))
    if len(model.trunk.blocks):
        spans.append(("trunk", model.trunk.blocks[0], model.trunk.blocks[-1]))
    spans.append(("head", model.norm, model))  # the head is no module where it is the embedding's
    return [hook for span in spans for hook in _range(*span)]


def _in_backward() -> bool:
    """Where blocks are computed again, up to what gradients need: their hooks then come in another order, or never."""
    return torch._C._current_graph_task_id() != -1  # as torch.utils.module_tracker tells


def _range(name: str, first: nn.Module, last: nn.Module) -> list[Any]:
    opened: list[Any] = []

    def enter(*_: Any) -> None:
        if _in_backward():
            return
        opened.append(record_function(name))
        opened[-1].__enter__()

    def leave(*_: Any) -> None:
        if opened and not _in_backward():
            opened.pop().__exit__(None, None, None)

    # Blocks may be compiled, with their hooks; a range has no place in what is compiled.
    opens, closes = torch.compiler.disable(enter), torch.compiler.disable(leave)
    return [first.register_forward_pre_hook(opens), last.register_forward_hook(closes)]
