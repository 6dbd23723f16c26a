"""The optimizers: AdamW as the paper trains (Appendix B), or Muon for the matrices inside the model.

Look-ups have a form of Adam that touches only what was read.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from aunet.config import TrainConfig
from aunet.model.aunet import AUNet
from aunet.model.flops import parts
from aunet.model.lookup import Lookup
from aunet.train.distributed import ALONE, Ranks
from aunet.train.muon import CutMuon

KINDS = ("decayed", "kept", "head", "muon", "lookup")
"""Of parameters: AdamW moves the first three, with decay, without, and with an epsilon of its own."""
INSIDE = ("contract", "pool", "trunk", "upsample", "expand")
"""Parts of a model whose matrices map vectors to vectors, which is what Muon is for; ids are elsewhere."""


def build_optimizers(model: AUNet, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW, decaying matrices and not the gains of norms; for look-ups SparseAdam; with `optimizer: muon` also Muon.

    Muon takes the matrices of blocks, pooling and upsampling. It sees a parameter as it is stored: queries, keys and
    values are one matrix, gate and up another, the maps of all offsets a third, so that the map of an offset that is
    rare moves as little as its gradient says. Steps have the root mean square of AdamW's, so that both have one
    learning rate and one weight decay (Liu et al. 2025, "Muon is Scalable for LLM Training").

    A step reads a few of the rows of a look-up, and Adam on all of them takes long beside a small model, so only those
    that were read are moved, without decay. They have no momentum: of a row that is read now and then it would take a
    tenth of the new gradient and the rest of gradients of long ago.

    AdamW makes steps of one size of gradients of any size, down to its epsilon, so what the text never has as next byte
    is pushed down until its probability is below 1e-6. A greater `head_eps` ends that earlier.

    From here on the gradients of look-ups are sparse. `relative_lr` of a group: its part of the learning rate, which is
    set at every step from the plan; `stage_lr` gives every stage one, the byte stage's with the embedding and the head,
    a transition's with the shallower of its two stages.
    """
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    groups: dict[str, dict[float, list[nn.Parameter]]] = {kind: {} for kind in KINDS}
    for part in parts(model):
        inside = config.optimizer == "muon" and part.name in INSIDE
        for parameter in (p for module in part.modules for p in module.parameters() if p.requires_grad):
            relative_lr = config.stage_lr[part.stage] if config.stage_lr else 1.0
            if part.name == "lookup":
                kind, relative_lr = "lookup", relative_lr * config.lookup_lr
            elif inside and parameter.dim() == 2 and id(parameter) not in embedded:
                kind = "muon"
            elif parameter is model.head_weight:
                kind = "head"
            else:
                kind = "decayed" if parameter.dim() >= 2 else "kept"
            groups[kind].setdefault(relative_lr, []).append(parameter)

    def of(kind: str, **options: float) -> list[dict[str, Any]]:
        return [{"params": found, "relative_lr": rate, **options} for rate, found in groups[kind].items()]

    adamw = [*of("decayed", weight_decay=config.weight_decay), *of("kept", weight_decay=0.0)]
    adamw += of("head", weight_decay=config.weight_decay, eps=config.head_eps)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(adamw, lr=0.0, betas=config.betas, fused=True)]
    if muon := of("muon", weight_decay=config.weight_decay):
        cut = any(isinstance(parameter, DTensor) for parameter in model.parameters())
        kind_of_muon = CutMuon if cut else torch.optim.Muon
        optimizers.append(kind_of_muon(muon, lr=0.0, adjust_lr_fn="match_rms_adamw"))
    if lookups := of("lookup"):
        optimizers.append(torch.optim.SparseAdam(lookups, betas=(0.0, config.betas[1])))
    for lookup in (module for module in model.modules() if isinstance(module, Lookup)):
        lookup.sparse = True
    return optimizers


def take_step(optimizers: Sequence[torch.optim.Optimizer], rate: float, skip: Tensor | None = None) -> None:
    """Move all parameters at this learning rate, and drop their gradients; with `skip` (1.0, on the device) only drop.

    The kernel of fused AdamW reads `skip` on the device; before Muon and SparseAdam the host has to wait for it.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["relative_lr"]
        if isinstance(optimizer, torch.optim.AdamW):
            optimizer.found_inf = skip  # type: ignore[attr-defined]
            optimizer.step()
        elif skip is None or not skip:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], largest: float, ranks: Ranks = ALONE) -> Tensor:
    """Scale all gradients by one factor so that their norm is at most `largest`; the norm before, on the device.

    Of parameters that are cut up among ranks the norm is that of the whole.
    """
    dense: list[nn.Parameter] = []
    sparse: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            # A row that was read several times stands there as often until it is summed.
            parameter.grad = parameter.grad.coalesce()
            sparse.append(parameter.grad.values())
        else:
            dense.append(parameter)
    norm = nn.utils.get_total_norm([parameter.grad for parameter in dense if parameter.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if sparse:  # each rank has columns of its own
        squares = ranks.sum(nn.utils.get_total_norm(sparse).square())
        norm = (norm.square() + squares).sqrt()
    nn.utils.clip_grads_with_norm_(dense, largest, norm)
    for values in sparse:
        values.mul_((largest / (norm + 1e-6)).clamp(max=1.0))
    return norm
