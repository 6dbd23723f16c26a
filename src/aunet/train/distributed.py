"""Several processes that train one model: who they are, what they agree on, and how they share the weights.

    copies x (ranks / copies) processes: every copy of the weights is cut up among the processes of one line,
    gradients are summed within the lines first and then between them

Who they are comes from the environment, as `torchrun` or `srun` set it. A process that is alone is `ALONE`: it answers
every question itself, and its model is a plain module.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from aunet.config import RunConfig
from aunet.data.mixing import Share
from aunet.errors import AUNetError, ConfigError
from aunet.model.aunet import AUNet, Stage

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
ASIDE_TIMEOUT = timedelta(hours=12)
"""A rank that writes to a slow disk or over a network is waited for; one that died is noticed at once."""

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
            problem = error.strerror or str(error)
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

    ConfigError where SLURM started several and nothing says where the first of them listens.
    """
    if "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_STEP_NUM_TASKS" in environment:  # SLURM_NTASKS is also set in a job's script, which is one process
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return ALONE
    rank, count, local = (int(environment.get(name, "0")) for name in names)
    ranks = Ranks(rank, count, local)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if ranks.count > 1 and name not in environment:
            raise ConfigError(
                f"{name} is not set, and {ranks.count} processes must find each other; export MASTER_ADDR as the "
                "host of the first one and MASTER_PORT as a free port there, or start them with torchrun"
            )
    return ranks


def check(config: RunConfig, ranks: Ranks, rows_per_step: int) -> None:
    """ConfigError that names the key where so many ranks cannot train this."""
    train, count = config.train, ranks.count
    if count % train.copies:
        raise ConfigError(f"train.copies: {count} processes cannot hold {train.copies} copies; give a divisor")
    if count == 1:
        return
    if rows_per_step < count * train.accumulate:
        raise ConfigError(
            f"train.batch_bytes: a step of {rows_per_step} rows is too small for {count} processes with "
            f"{train.accumulate} micro-batches each; raise it to {count * train.accumulate * config.data.seq_len}, "
            "or start fewer"
        )
    for s, stage in enumerate(config.model.stages):
        if stage.lookup is not None:
            raise ConfigError(f"model.stages.{s}.lookup: look-ups are trained by one process only; leave it out")
    if train.optimizer == "muon":
        raise ConfigError("train.optimizer: muon is run by one process only; take adamw")


@contextmanager
def joined(ranks: Ranks, device: torch.device) -> Iterator[None]:
    """The processes know each other while the block runs: by gloo on the CPU, by NCCL on CUDA."""
    if ranks.count == 1:
        yield
        return
    on_cuda = device.type == "cuda"
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
        rank=ranks.rank,
        world_size=ranks.count,
        device_id=device if on_cuda else None,
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def shard(model: AUNet, ranks: Ranks, copies: int, device: torch.device) -> None:
    """Cut the weights up among the ranks, into so many complete copies, and sum gradients over all of them.

    Each block and each way into and out of a deeper stage is gathered by itself when it is used, what embeds bytes and
    the head with the model. All ranks must hold the same weights before.
    """
    if ranks.count == 1:
        return
    if copies == 1:
        mesh = init_device_mesh(device.type, (ranks.count,))
    else:
        mesh = init_device_mesh(device.type, (copies, ranks.count // copies), mesh_dim_names=("copy", "part"))
    modules: list[nn.Module] = [*model.trunk.blocks]
    for stage in (cast(Stage, module) for module in model.stages):
        modules += [*stage.contract, stage.pool, stage.upsample, *stage.expand]
    for module in (*modules, model):
        sharded = fully_shard(module, mesh=mesh)
        # The loss is divided by the positions of all ranks already; gloo has sums, and no sums that are scaled.
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)


def synchronise(model: AUNet, now: bool) -> None:
    """Whether the next backward pass sums the gradients over the ranks; without, they are added up here."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(now)


def whole(model: AUNet, ranks: Ranks, device: torch.device) -> AUNet | None:
    """The model with all its weights, on the first rank alone."""
    if ranks.count == 1:
        return model
    state = get_model_state_dict(model, options=WHOLE)
    if not ranks.first:
        return None
    gathered = AUNet.on_meta(model.config)
    gathered.load_state_dict(state, assign=True)
    return gathered.to(device)


def load_whole(model: AUNet, state: dict[str, Any]) -> None:
    """Take weights that every rank has read whole."""
    if isinstance(model, FSDPModule):
        set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True))
    else:
        model.load_state_dict(state)
