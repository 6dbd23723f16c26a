"""Look-ups of several ranks: every rank keeps some columns of all rows.

Shapes: T positions of this rank, A positions of all ranks together, N tables of a stage, D its width, C columns of this
rank.

Tables are most of what a model with look-ups has, so no rank keeps a copy. Cut by rows, a rank would have to fetch N
rows of width D for each of its positions from whoever has them, and send as many gradients back. Cut by columns, it is
told which rows all ranks look up, N integers for each position, sums its own columns of them, and N sums become one
before anything is sent: as much as the stage's input, however many tables there are. All ranks have equal work whatever
is looked up. A rank's columns see the gradients of all positions, so no gradient is exchanged or summed afterwards,
and an optimizer that works number by number, as SparseAdam does, needs to know nothing of it.

The price: the rows of all positions pass through every rank, and a row of few columns is read slowly. At widths of
hundreds this is for tens of ranks, not for thousands.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from aunet.model.lookup import Lookup


def chunks(length: int, count: int) -> list[int]:
    """How torch cuts a dimension of this length up among so many ranks; the last ones may have less or nothing.

    >>> chunks(16, 3), chunks(5, 4)
    ([6, 6, 4], [2, 2, 1, 0])
    """
    most = -(-length // count)
    return [max(0, min(most, length - rank * most)) for rank in range(count)]


class CutLookup(Lookup):
    """This rank's columns of a look-up. All ranks must call it together."""

    def __init__(self, whole: Lookup, mesh: DeviceMesh) -> None:
        """`mesh`: one dimension, all ranks."""
        rows, dim = whole.weight.shape
        self.columns = chunks(dim, mesh.size())
        super().__init__(whole.config, self.columns[mesh.get_rank()])
        self._mesh, self._shape = mesh, torch.Size((rows, dim))
        self.register_state_dict_post_hook(_store_as_part)  # type: ignore[no-untyped-call]

    def forward(self, rows_TN: Tensor) -> Tensor:
        """Sum of the rows, [T, D]: all ranks' rows in, own columns of the sums out, all columns of own positions in."""
        rows_AN, positions = _all_rows(rows_TN)
        sums_AC = super().forward(rows_AN)
        sent = [count * sums_AC.shape[1] for count in positions]
        received = [len(rows_TN) * columns for columns in self.columns]
        got = cast(Tensor, _Exchange.apply(sums_AC.flatten(), received, sent))  # type: ignore[no-untyped-call]
        return torch.cat([part.view(len(rows_TN), -1) for part in got.split(received)], dim=1)

    def stored(self, own: Tensor) -> DTensor:
        """A tensor of this rank's columns as what it is: a part of the whole, in the same memory."""
        stride = (self._shape[1], 1)
        return DTensor.from_local(own, self._mesh, [Shard(1)], run_check=False, shape=self._shape, stride=stride)


class _Exchange(torch.autograd.Function):
    """So many numbers from and to every rank; gradients go the way back. torch's own is deprecated or not public."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, received: list[int], sent: list[int]) -> Tensor:
        ctx.splits = received, sent
        found = values.new_empty(sum(received))
        distributed.all_to_all_single(found, values.contiguous(), received, sent)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        received, sent = ctx.splits
        return cast(Tensor, _Exchange.apply(gradients[0], sent, received)), None, None  # type: ignore[no-untyped-call]


def _store_as_part(module: nn.Module, state: dict[str, Any], prefix: str, _: Mapping[str, Any]) -> None:
    assert isinstance(module, CutLookup)
    state[f"{prefix}weight"] = module.stored(state[f"{prefix}weight"])


def _all_rows(rows_TN: Tensor) -> tuple[Tensor, list[int]]:
    """The rows of all ranks one below the other, [A, N], and every rank's number of positions."""
    count = distributed.get_world_size()
    own = torch.tensor([len(rows_TN)])  # on the host, where it is needed
    lengths = [torch.empty_like(own) for _ in range(count)]
    distributed.all_gather(lengths, own)
    positions = [int(length) for length in lengths]
    padded = rows_TN.new_zeros((max(positions), rows_TN.shape[1]))
    padded[: len(rows_TN)] = rows_TN
    found = [torch.empty_like(padded) for _ in range(count)]
    distributed.all_gather(found, padded)
    return torch.cat([rows[:length] for rows, length in zip(found, positions, strict=True)]), positions
