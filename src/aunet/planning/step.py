"""The memory of a training step, found by taking the step on tensors without memory.

The model's own forward and backward pass run on fake tensors (`torch._subclasses.fake_tensor`, with which torch.compile
traces): all operations, shapes and types are those of a real step, and the storages that are alive are followed one by
one. So nothing is derived a second time, and what autograd keeps, what autocast copies and what a backward pass needs
for a moment are all there. What lies inside one operation (a kernel's workspace) is not.
"""

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aunet.config import AUNetConfig, TrainConfig
from aunet.model.aunet import AUNet
from aunet.model.flops import parts
from aunet.model.lookup import Lookup
from aunet.model.loss import positions_at_once
from aunet.model.memory import FLOAT
from aunet.train.optim import build_optimizers

PartName = tuple[str, int]
"""As in `aunet.model.flops.parts`: a name and a stage (0-based)."""
HALF, INDEX = 2, 8
"""Bytes of a number under autocast, and of an index."""


class Live(TorchDispatchMode):
    """Follows the storages that operations make while it is entered, fake or real, until they are freed."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part: PartName = ("embedding", 0)
        """Whom new storages belong to."""
        self.history: list[tuple[int, int]] = []
        """After every operation that made a storage: bytes alive that are gradients of parameters, and all others."""
        self._of: dict[int, tuple[PartName | None, int]] = {}
        self._gradients = self._others = 0
        # Storages that were there before: held, since the address of a freed one would come again.
        self._known = {_key(tensor): tensor.untyped_storage() for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and note what is new."""
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                for dense in (value._indices(), value._values()) if value.is_sparse else (value,):
                    self._note(dense)
        return out

    def _note(self, tensor: Tensor) -> None:
        key = _key(tensor)
        if key in self._of or key in self._known:
            return
        storage = tensor.untyped_storage()
        self._of[key] = self.part, storage.nbytes()
        self._others += storage.nbytes()
        weakref.finalize(storage, self._drop, key).atexit = False
        self.history.append((self._gradients, self._others))

    def _drop(self, key: int) -> None:
        part, size = self._of.pop(key)
        if part is None:
            self._gradients -= size
        else:
            self._others -= size

    def is_gradient(self, parameter: Tensor) -> None:
        """From here on the storage of this parameter's gradient counts as such."""
        gradient = parameter.grad
        if gradient is None:
            return
        for dense in (gradient._indices(), gradient._values()) if gradient.is_sparse else (gradient,):
            part, size = self._of.get(_key(dense), (None, 0))
            if part is not None:
                self._of[_key(dense)] = None, size
                self._others -= size
                self._gradients += size

    def by_part(self) -> dict[PartName, int]:
        """Bytes alive by the part that made them."""
        found: dict[PartName, int] = {}
        for part, size in self._of.values():
            if part is not None:
                found[part] = found.get(part, 0) + size
        return found


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a step of one replica, beside its weights."""

    optimizer: int
    """What the optimizers remember."""
    gradients: int
    activations: dict[PartName, int]
    """What the forward pass leaves for the backward pass, by part; the loss belongs to the head."""
    history: tuple[tuple[int, int], ...]
    """As of `Live`: gradients and all else through the last micro-batch, forward and backward."""

    def peak(self, gradient_share: float) -> int:
        """Most bytes alive at once, if that share of the gradients is kept."""
        return max(round(gradients * gradient_share) + others for gradients, others in self.history)


def step_memory(
    config: AUNetConfig,
    train: TrainConfig,
    counts: Sequence[int],
    rows: int,
    recompute: Sequence[int] = (),
) -> StepMemory:
    """Memory of a step on one micro-batch of `counts` units per stage in `rows` documents, or on several in turn.

    `recompute`: stages (1-based) whose blocks keep what enters them and compute the rest again. Mamba-2 has to read the
    lengths of documents; such a model is followed on the `meta` device, in fp32.
    """
    mamba = any(stage.mixer == "mamba2" for stage in config.stages)
    model = AUNet.on_meta(config)
    half = train.precision == "bf16" and not mamba
    with warnings.catch_warnings(), _without_memory("meta" if mamba else "cpu") as device:
        warnings.simplefilter("ignore")  # of kernels that a fake tensor cannot take
        _give_tensors(model)
        model.recompute([s in recompute for s in range(1, len(config.stages) + 1)])
        for lookup in (module for module in model.modules() if isinstance(module, Lookup)):
            lookup.sparse = True
        ids_T = torch.empty(counts[0], dtype=torch.int64)
        levels_T = torch.empty(counts[0], dtype=torch.uint8)
        starts_N = torch.empty(rows + 1, dtype=torch.int64)
        longest = -(-counts[0] // rows)

        def loss() -> Tensor:
            with _autocast(device, half):
                return model.loss(ids_T, ids_T, levels_T, starts_N, counts, longest) / counts[0]

        live, activations = follow(model, loss, min(train.accumulate, 2))
    history = live.history
    if half and train.device != "cpu":
        gathered = _gathered_on_cuda(config, counts)
        for part, extra in gathered.items():
            activations[part] = activations.get(part, 0) + extra
        history = [(gradients, others + sum(gathered.values())) for gradients, others in history]
    if train.device != "cpu":
        logits = _logits_on_cuda(config, counts)
        history = [(gradients, others + logits) for gradients, others in history]
    # Fake sparse gradients are empty. Real ones are there at the end, and a second time while their rows are summed.
    gradients, others = history[-1]
    read = _read_of_lookups(config, counts)
    history.append((gradients + read, others + read))
    return StepMemory(optimizer_bytes(config, train), gradients + read, activations, tuple(history))


def _give_tensors(model: AUNet) -> None:
    """Replace what is on `meta` by tensors of the same shapes and types on the default device."""
    state = {name: torch.empty(values.shape, dtype=values.dtype) for name, values in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def follow(model: AUNet, loss: Callable[[], Tensor], passes: int = 1) -> tuple[Live, dict[PartName, int]]:
    """Run forward and backward so often, and follow the last; also what its forward pass left, by part."""
    live = Live([*model.parameters(), *model.buffers()])
    handles = [p.register_post_accumulate_grad_hook(live.is_gradient) for p in model.parameters()]
    for part in parts(model):
        for module in (inner for outer in part.modules for inner in outer.modules()):
            handles.append(module.register_forward_pre_hook(_entering(live, (part.name, part.stage))))
    with live:
        for _ in range(passes):
            live.history.clear()
            live.part = ("embedding", 0)
            found = loss()
            activations = live.by_part()
            found.backward()
            del found
        live.history.append((live._gradients, live._others))
    for handle in handles:
        handle.remove()
    return live, activations


def _entering(live: Live, part: PartName) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        live.part = part

    return hook


@contextmanager
def _without_memory(kind: str) -> Iterator[torch.device]:
    device = torch.device(kind)
    with FakeTensorMode(allow_non_fake_inputs=True) if kind != "meta" else device, device:
        yield device


@contextmanager
def _autocast(device: torch.device, half: bool) -> Iterator[None]:
    if not half:
        yield
        return
    with torch.autocast(device.type, torch.bfloat16):
        yield


def _gathered_on_cuda(config: AUNetConfig, counts: Sequence[int]) -> dict[PartName, int]:
    """What multi-linear upsampling keeps on CUDA in bf16 and not elsewhere: every position's coarse vector.

    The grouped product there reads them sorted by offset, where the CPU's picks them as it goes.
    """
    if config.upsampling != "multilinear":
        return {}
    wider = enumerate(config.stages[1:])
    return {("upsample", s): HALF * deeper.dim * (counts[s] - counts[s + 1]) for s, deeper in wider}


def _logits_on_cuda(config: AUNetConfig, counts: Sequence[int]) -> int:
    """Logits that the loss makes at a time there, and their logarithms; elsewhere there are next to none, or none.

    They are gone before the backward pass begins, so this is too much where the peak comes later.
    """
    at_once = positions_at_once("cuda", config.stages[0].dim, config.vocab_size)
    return 2 * FLOAT * config.vocab_size * min(counts[0], at_once)


def _read_of_lookups(config: AUNetConfig, counts: Sequence[int]) -> int:
    """Gradients of look-ups: a row and its number for everything that was looked up."""
    return sum(
        count * len(stage.lookup.ngrams) * (FLOAT * stage.dim + INDEX)
        for stage, count in zip(config.stages, counts, strict=True)
        if stage.lookup is not None
    )


def optimizer_bytes(config: AUNetConfig, train: TrainConfig) -> int:
    """What the optimizers of a whole model remember: two numbers for a parameter with Adam, one with Muon."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = AUNet.on_meta(config)
        with torch.device("cpu"):
            _give_tensors(model)
        optimizers = build_optimizers(model, train)
        return sum(
            (1 if isinstance(optimizer, torch.optim.Muon) else 2) * parameter.numel() * parameter.element_size()
            for optimizer in optimizers
            for group in optimizer.param_groups
            for parameter in cast(list[nn.Parameter], group["params"])
        )
