"""Several processes that train one model: who they are, what they agree on, and how they share the weights.

    copies x (ranks / copies) processes: every copy of the weights is cut up among the processes of one line,
    gradients are summed within the lines first and then between them

Who they are comes from the environment, as `torchrun` or `srun` set it. A process that is alone is `ALONE`: it answers
every question itself, and its model is a plain module.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous

from aunet.config import RunConfig
from aunet.data.mixing import Share
from aunet.errors import ConfigError
from aunet.model.aunet import AUNet, Stage

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True)
class Ranks:
    """This process among all that train together. What it asks of the others, all must ask in the same order."""

    rank: int = 0
    count: int = 1
    local: int = 0
    """Among those of its machine."""

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
        distributed.all_reduce(summed)
        return summed.tolist()

    def most(self, value: int) -> int:
        """The largest of the ranks' values."""
        if self.count == 1:
            return value
        found = torch.tensor(value)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return int(found)

    def sum(self, value: Tensor) -> Tensor:
        """A tensor summed over all ranks, on its device."""
        if self.count > 1:
            distributed.all_reduce(value)
        return value

    def wait(self) -> None:
        """Until all ranks are here."""
        self.most(0)


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
    ranks = Ranks(*(int(environment.get(name, "0")) for name in names))
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if ranks.count > 1 and name not in environment:
            raise ConfigError(
                f"{name} is not set, and {ranks.count} processes must find each other; export MASTER_ADDR as the "
                "host of the first one and MASTER_PORT as a free port there, or start them with torchrun"
            )
    machines, restarts = (environment.get(name) for name in ("GROUP_WORLD_SIZE", "TORCHELASTIC_MAX_RESTARTS"))
    if _has_old_store(environment) and machines != "1" and restarts != "0":
        raise ConfigError(
            "torchrun --max-restarts: the launchers of several machines count restarts each for itself, and new "
            "processes would wait for dead ones; export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun"
        )
    return ranks


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
def joined(ranks: Ranks, device: torch.device) -> Iterator[Store | None]:
    """The processes know each other while the block runs: by gloo on the CPU, by NCCL on CUDA. Yields their store.

    After an error nothing is taken down: the process ends, which the others notice, and waiting for them might hang.
    """
    if ranks.count == 1:
        yield None
        return
    on_cuda = device.type == "cuda"
    # torchrun keeps one store for all its restarts, in which the addresses of processes that are dead still stand:
    # the next ones would try to connect to them for half an hour (pytorch/pytorch#135712).
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"] if _has_old_store(os.environ) else "0"
    store = next(rendezvous("env://", ranks.rank, ranks.count))[0]
    store = PrefixStore(f"attempt-{attempt}", store)
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
        store=store,
        rank=ranks.rank,
        world_size=ranks.count,
        device_id=device if on_cuda else None,
    )
    yield store
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
