"""Muon for matrices that are cut up among ranks.

The Newton-Schulz iterations need whole matrices, and in bfloat16 they tell one way of adding up from another. So every
matrix has an owner among the ranks that keep its parts: the owner is sent all parts of the weights, the gradient and
the momentum, does what `torch.optim.Muon` does, and sends the parts of weights and momentum back. Each matrix is worked
on once among these ranks, with the bits of one process; copies of the weights each do it for themselves.

What is sent for a step, five times a rank's part of the matrices, is little beside gathering whole layers for the
forward and the backward pass. Between steps nothing is kept but the parts, so checkpoints know of no owners.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from aunet.train.tables import chunks


class CutMuon(torch.optim.Muon):
    """`torch.optim.Muon` of parameters that are DTensors, cut up by rows; all ranks must take a step together."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            moved = [cast(DTensor, p) for p in group["params"] if p.grad is not None]
            if moved:
                self._step(group, moved)

    def _step(self, group: dict[str, Any], moved: Sequence[DTensor]) -> None:
        mesh = moved[0].device_mesh
        ranks = mesh.get_group(mesh.ndim - 1)  # those that keep one copy together
        count, rank = ranks.size(), ranks.rank()
        # Dealt out from the largest on, so that all have about the same to do.
        dealt = sorted(moved, key=DTensor.numel, reverse=True)
        owned = [dealt[owner::count] for owner in range(count)]
        triples = [[self._triple(parameter) for parameter in of_owner] for of_owner in owned]
        sent = [[part for triple in of_owner for part in triple] for of_owner in triples]
        shapes = [parameter.shape for parameter in owned[rank] for _ in range(3)]
        wholes = _to_owners(sent, shapes, ranks)
        weights, gradients, momenta = (wholes[i::3] for i in range(3))
        if weights:
            optimizer = torch.optim.Muon(
                [nn.Parameter(weight) for weight in weights], **{key: group[key] for key in self.defaults}
            )
            parameters = optimizer.param_groups[0]["params"]
            for parameter, gradient, momentum in zip(parameters, gradients, momenta, strict=True):
                parameter.grad = gradient
                optimizer.state[parameter] = {"momentum_buffer": momentum}
            optimizer.step()
        pairs = [whole for pair in zip(weights, momenta, strict=True) for whole in pair]
        kept = [[part for weight, _, momentum in of_owner for part in (weight, momentum)] for of_owner in triples]
        _to_parts(pairs, kept, ranks)

    def _triple(self, parameter: DTensor) -> tuple[Tensor, Tensor, Tensor]:
        """This rank's part of the weights, the gradient and the momentum; the memory is theirs."""
        gradient, momentum = cast(DTensor, parameter.grad), self.state[parameter]["momentum_buffer"]
        return parameter.to_local(), gradient.to_local(), momentum.to_local()


def _to_owners(
    sent: Sequence[Sequence[Tensor]], shapes: Sequence[torch.Size], ranks: distributed.ProcessGroup
) -> list[Tensor]:
    """Parts for every owner to whole matrices of these shapes at each."""
    sizes = [[rows[rank] * shape[1] for rows, shape in _cuts(shapes, ranks)] for rank in range(ranks.size())]
    received = _exchange(sent, [sum(of_rank) for of_rank in sizes], ranks, sent[0][0])
    parts = [piece.split(of_rank) for piece, of_rank in zip(received, sizes, strict=True)]
    return [torch.cat(of_one).view(shape) for of_one, shape in zip(zip(*parts, strict=True), shapes, strict=True)]


def _to_parts(wholes: Sequence[Tensor], kept: Sequence[Sequence[Tensor]], ranks: distributed.ProcessGroup) -> None:
    """The way back: whole matrices of the owners into the parts of every owner's matrices."""
    cuts = [whole.split(rows) for whole, (rows, _) in zip(wholes, _cuts([w.shape for w in wholes], ranks), strict=True)]
    sent = [[cut[rank] for cut in cuts] for rank in range(ranks.size())]
    received = _exchange(sent, [sum(part.numel() for part in of_owner) for of_owner in kept], ranks, kept[0][0])
    for piece, of_owner in zip(received, kept, strict=True):
        for part, values in zip(of_owner, piece.split([part.numel() for part in of_owner]), strict=True):
            part.copy_(values.view_as(part))


def _cuts(shapes: Sequence[torch.Size], ranks: distributed.ProcessGroup) -> list[tuple[list[int], torch.Size]]:
    """Rows of every matrix that each rank keeps, and its shape."""
    return [(chunks(shape[0], ranks.size()), shape) for shape in shapes]


def _exchange(
    sent: Sequence[Sequence[Tensor]], sizes: Sequence[int], ranks: distributed.ProcessGroup, like: Tensor
) -> Sequence[Tensor]:
    """Numbers for every rank to as many from each as `sizes` says, of the type and on the device of `like`."""
    flat = torch.cat([like.new_empty(0), *(part.flatten() for of_rank in sent for part in of_rank)])
    received = like.new_empty(sum(sizes))
    splits = [sum(part.numel() for part in of_rank) for of_rank in sent]
    distributed.all_to_all_single(received, flat, list(sizes), splits, group=ranks)
    return received.split(list(sizes))
