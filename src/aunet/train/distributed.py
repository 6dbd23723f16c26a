"""Several processes that train one model: who they are, what they agree on, and how they share the weights.

    copies x (ranks / copies) processes: every copy of the weights is cut up among the processes of one line,
    gradients are summed within the lines first and then between them

Who they are comes from the environment, as `torchrun` or `srun` set it. A process that is alone is `ALONE`: it answers
every question itself, and its model is a plain module.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from aunet.config import RunConfig, TrainConfig
from aunet.data.mixing import Share
from aunet.errors import AUNetError, ConfigError
from aunet.model.aunet import AUNet, Stage
from aunet.model.mamba import MambaBlock
from aunet.train.tables import CutLookup, chunks

AHEAD = 2
"""Modules whose weights are asked for before they are needed: a pooling is too small to hide the block behind it."""
PIECE = 1 << 24
"""Numbers of a look-up that are gathered at once."""
ASIDE_TIMEOUT = timedelta(hours=12)
"""A rank that writes to a slow disk or over a network is waited for; one that died is noticed at once."""

START_THEM = "start several processes with torchrun or --processes, and unset WORLD_SIZE for one"

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among all that train together. What it asks of the others, all must ask in the same order."""

    rank: int = 0
    count: int = 1
    local: int = 0
    """Among those of its machine."""
    group: distributed.ProcessGroup | None = None
    """Through which they talk; None: that of all training."""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and talks."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """The rows of this process."""
        return Share(self.rank, self.count)

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each of these numbers, summed over all ranks; whole numbers stay exact below 2^53."""
        if self.count == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(summed, group=self.group)
        return summed.tolist()

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """These numbers of every rank, in the order of the ranks."""
        if self.count == 1:
            return [list(values)]
        mine = torch.tensor(values, dtype=torch.float64)
        found = [torch.empty_like(mine) for _ in range(self.count)]
        distributed.all_gather(found, mine, group=self.group)
        return [of_rank.tolist() for of_rank in found]

    def most(self, value: int) -> int:
        """The largest of the ranks' values."""
        if self.count == 1:
            return value
        found = torch.tensor(value)
        distributed.all_reduce(found, distributed.ReduceOp.MAX, group=self.group)
        return int(found)

    def sum(self, value: Tensor) -> Tensor:
        """A tensor summed over all ranks, on its device."""
        if self.count > 1:
            distributed.all_reduce(value, group=self.group)
        return value

    def from_first(self, value: Tensor) -> None:
        """Fill a tensor with the first rank's values."""
        if self.count > 1:
            distributed.broadcast(value, 0, group=self.group)

    def wait(self) -> None:
        """Until all ranks are here."""
        self.most(0)

    def each(self, value: T) -> list[T]:
        """What every rank says, in their order."""
        if self.count == 1:
            return [value]
        said: list[Any] = [None] * self.count
        distributed.all_gather_object(said, value, group=self.group)
        return said

    def together(self, action: Callable[[], T]) -> list[T]:
        """What the action gives on every rank; an AUNetError or OSError of any of them is an AUNetError of all."""
        done, problem = None, None
        try:
            done = action()
        except AUNetError as error:
            problem = str(error)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            problem = f"{place}{error.strerror or error}"
        said = self.each((done, problem))
        for _, problem in said:
            if problem is not None:
                raise AUNetError(problem)
        return [cast(T, done) for done, _ in said]

    def aside(self) -> "Ranks":
        """The same ranks with a group of their own, over the CPU: a thread talks through it while training goes on."""
        if self.count == 1:
            return self
        return replace(self, group=distributed.new_group(backend="gloo", timeout=ASIDE_TIMEOUT))


ALONE = Ranks()


def find_ranks(environment: Mapping[str, str] = os.environ) -> Ranks:
    """The ranks that `torchrun` or a step of SLURM has started; ALONE elsewhere.

    ConfigError that names the variable which is no such number, and where nothing says where the first of several
    listens.
    """
    if "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_STEP_NUM_TASKS" in environment:  # SLURM_NTASKS is also set in a job's script, which is one process
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return ALONE
    rank, count, local = (_whole_number(environment, name) for name in names)
    if not rank < count:
        raise ConfigError(f"{names[0]} is {rank}, {names[1]} {count}: processes count from 0; {START_THEM}")
    ranks = Ranks(rank, count, local)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if ranks.count > 1 and name not in environment:
            raise ConfigError(
                f"{name} is not set, and {ranks.count} processes must find each other; export MASTER_ADDR as the "
                "host of the first one and MASTER_PORT as a free port there, or start them with torchrun"
            )
    if ranks.count > 1 and not 0 < _whole_number(environment, "MASTER_PORT") < 1 << 16:
        raise ConfigError(f"MASTER_PORT is {environment['MASTER_PORT']}; give a free port from 1 to 65535")
    machines, restarts = (environment.get(name) for name in ("GROUP_WORLD_SIZE", "TORCHELASTIC_MAX_RESTARTS"))
    if _has_old_store(environment) and machines != "1" and restarts != "0":
        raise ConfigError(
            "torchrun --max-restarts: the launchers of several machines count restarts each for itself, and new "
            "processes would wait for dead ones; export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun"
        )
    return ranks


def _whole_number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "0")
    if not text.isdecimal():
        raise ConfigError(f"{name} is {text!r} in the environment, not a whole number; {START_THEM}")
    return int(text)


def _has_old_store(environment: Mapping[str, str]) -> bool:
    """Whether the processes meet in a store of torchrun, which outlives them."""
    return environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def check(config: RunConfig, ranks: Ranks, rows_per_step: int) -> None:
    """ConfigError that names the key where so many ranks cannot train this."""
    train, count = config.train, ranks.count
    if count % train.copies:
        raise ConfigError(f"train.copies: {count} processes cannot hold {train.copies} copies; give a divisor")
    if count == 1:
        return
    if train.device.startswith("cuda:"):
        raise ConfigError(
            f"train.device: all {count} processes would share {train.device}; give cuda, and each has its own"
        )
    if rows_per_step < count * train.accumulate:
        raise ConfigError(
            f"train.batch_bytes: a step of {rows_per_step} rows is too small for {count} processes with "
            f"{train.accumulate} micro-batches each; raise it to {count * train.accumulate * config.data.seq_len}, "
            "or start fewer"
        )
    for s, stage in enumerate(config.model.stages):
        if stage.lookup is not None and not chunks(stage.dim, count)[-1]:
            raise ConfigError(
                f"model.stages.{s}.lookup: {stage.dim} columns, {-(-stage.dim // count)} for each process, are too few "
                f"for {count} processes; start a number of them that divides {stage.dim}"
            )


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[Store | None]:
    """The processes know each other while the block runs: by gloo on the CPU, by NCCL on CUDA. Yields their store.

    AUNetError that names the address where they cannot meet.

    After an error nothing is taken down: the process ends, which the others notice, and waiting for them might hang.
    """
    if ranks.count == 1:
        yield None
        return
    on_cuda = device.type == "cuda"
    # torchrun keeps one store for all its restarts, in which the addresses of processes that are dead still stand:
    # the next ones would try to connect to them for half an hour (pytorch/pytorch#135712).
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"] if _has_old_store(os.environ) else "0"
    try:
        store = next(rendezvous("env://", ranks.rank, ranks.count))[0]
        store = PrefixStore(f"attempt-{attempt}", store)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            store=store,
            rank=ranks.rank,
            world_size=ranks.count,
            device_id=device if on_cuda else None,
        )
    except (RuntimeError, ValueError, OSError) as error:
        place = f"{os.environ['MASTER_ADDR']}, port {os.environ['MASTER_PORT']}"
        raise AUNetError(
            f"rank {ranks.rank} cannot meet the others at {place} ({' '.join(str(error).split())[:200]}); see that "
            "MASTER_ADDR is the host of the first one and MASTER_PORT free there"
        ) from None
    yield store
    distributed.destroy_process_group()


def shard(model: AUNet, ranks: Ranks, train: TrainConfig, device: torch.device) -> None:
    """Cut the weights up among the ranks, into `train.copies` copies, and sum gradients over all of them.

    The model is on `meta`, so that no rank has ever more than its part; `place` fills it after `to_empty`. Each block
    and each way into and out of a deeper stage is gathered by itself when it is used, what embeds bytes and the head
    with the model. Look-ups are cut up among all ranks, whatever the copies.

    With bf16 what is gathered is bf16, and autocast goes on deciding what is computed in it: embedded bytes, the
    residual stream, norms and sums of gradients are fp32 as in one process. What differs: gains of norms are rounded
    to bf16, and so are W and W_p of the upsampling before they are added. Blocks of Mamba-2 are gathered in fp32, for
    their rates of forgetting are near 1 and must not be rounded.
    """
    if ranks.count == 1:
        return
    everyone = init_device_mesh(device.type, (ranks.count,))
    mesh = everyone
    if train.copies > 1:
        shape = (train.copies, ranks.count // train.copies)
        mesh = init_device_mesh(device.type, shape, mesh_dim_names=("copy", "part"))
    tables: set[nn.Parameter] = set()
    for stage in (*model.stages, model.trunk):
        if stage.lookup is not None:
            with torch.device("meta"):
                stage.lookup = CutLookup(stage.lookup, everyone)
            tables.add(stage.lookup.weight)
    exact = MixedPrecisionPolicy()
    rounded = exact
    if train.precision == "bf16":
        rounded = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    modules = in_order(model)
    for module in modules:
        policy = exact if isinstance(module, MambaBlock) else rounded
        _sum_gradients(fully_shard(module, mesh=mesh, mp_policy=policy))
    _sum_gradients(fully_shard(model, mesh=mesh, mp_policy=exact, ignored_params=tables))
    ask_ahead(model, cast(list[FSDPModule], modules))


def in_order(model: AUNet) -> list[nn.Module]:
    """What is gathered by itself, in the order in which a forward pass uses it."""
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    for stage in (cast(Stage, module) for module in model.stages):
        down += [*stage.contract, stage.pool]
        up = [stage.upsample, *stage.expand, *up]
    return [*down, *model.trunk.blocks, *up]


def ask_ahead(model: nn.Module, modules: Sequence[FSDPModule]) -> None:
    """Every module asks for the weights of the next ones before it computes, on the way back for the previous ones.

    So the last blocks of the byte stage, which compute for long on little, have the wide blocks behind the pooling
    gathered meanwhile.
    """
    cast(FSDPModule, model).set_modules_to_forward_prefetch(list(modules[:AHEAD]))
    for i, module in enumerate(modules):
        module.set_modules_to_forward_prefetch(list(modules[i + 1 : i + 1 + AHEAD]))
        module.set_modules_to_backward_prefetch(list(modules[max(0, i - AHEAD) : i])[::-1])


def _sum_gradients(module: FSDPModule) -> None:
    # The loss is divided by the positions of all ranks already; gloo has sums, and no sums that are scaled.
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)


def synchronise(model: AUNet, now: bool) -> None:
    """Whether the next backward pass sums the gradients over the ranks; without, they are added up here."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)


def place(kept: Tensor, values: Tensor) -> None:
    """Values of a whole parameter, which every rank has, into what this rank keeps of it."""
    if isinstance(kept, DTensor):
        values = distribute_tensor(values, kept.device_mesh, kept.placements, src_data_rank=None).to_local()
        kept = kept.to_local()
    kept.copy_(values)


def load_whole(model: AUNet, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Take weights that every rank reads whole, one after the other."""
    kept = model.state_dict()
    with torch.no_grad():
        for name, values in weights:
            place(kept[name], values)


def whole(model: AUNet, ranks: Ranks) -> AUNet | None:
    """The model with all its weights, in the memory of the first rank's host, and on no other rank."""
    if ranks.count == 1:
        return model
    state: dict[str, Tensor] = {}
    for name, kept in model.state_dict().items():
        values = _gathered(kept, ranks)
        if values is not None:
            state[name] = values
    if not ranks.first:
        return None
    gathered = AUNet.on_meta(model.config)
    gathered.load_state_dict(state, assign=True)
    return gathered


def _gathered(kept: Tensor, ranks: Ranks) -> Tensor | None:
    """A whole tensor on the first rank; other ranks have a piece of it for a moment."""
    if not isinstance(kept, DTensor):  # the keys of look-ups, which every rank has
        return kept.cpu() if ranks.first else None
    if kept.placements[-1] == Shard(0):  # of a layer, which is gathered in every step
        values = kept.full_tensor()
        return values.cpu() if ranks.first else None
    rows = max(1, PIECE // kept.shape[1])
    found = torch.empty(kept.shape if ranks.first else (0, 0), dtype=kept.dtype)
    for start in range(0, kept.shape[0], rows):
        piece = cast(DTensor, kept[start : start + rows]).full_tensor()
        if ranks.first:
            found[start : start + rows] = piece
    return found if ranks.first else None


def as_part(kept: Tensor, own: Tensor) -> Tensor:
    """What an optimizer keeps for each number of `kept` as such a part of a whole as `kept` is, in the same memory."""
    if not isinstance(kept, DTensor) or isinstance(own, DTensor) or own.shape != kept.to_local().shape:
        return own
    return DTensor.from_local(
        own, kept.device_mesh, kept.placements, run_check=False, shape=kept.shape, stride=kept.stride()
    )
