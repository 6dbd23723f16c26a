"""The optimizers: AdamW as the paper trains (Appendix B), and for look-ups its form that touches only what was read."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from aunet.config import TrainConfig
from aunet.model.lookup import Lookup


def build_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW with two groups, matrices with weight decay and gains of norms without; for look-ups SparseAdam.

    A step reads a few of the rows of a look-up, and Adam on all of them takes long beside a small model, so only those
    that were read are moved, without decay. They have no momentum: of a row that is read now and then it would take a
    tenth of the new gradient and the rest of gradients of long ago.

    From here on the gradients of look-ups are sparse. `relative_lr` of a group: its part of the learning rate, which is
    set at every step from the plan.
    """
    lookups = [module for module in model.modules() if isinstance(module, Lookup)]
    tables = [lookup.weight for lookup in lookups if lookup.weight.requires_grad]
    looked_up = {id(table) for table in tables}
    parameters = [p for p in model.parameters() if p.requires_grad and id(p) not in looked_up]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)]
    if tables:
        optimizers.append(torch.optim.SparseAdam(tables, betas=(0.0, config.betas[1])))
    for optimizer, relative_lr in zip(optimizers, (1.0, config.lookup_lr), strict=False):
        for group in optimizer.param_groups:
            group["relative_lr"] = relative_lr
    for lookup in lookups:
        lookup.sparse = True
    return optimizers


def take_step(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Move all parameters at this learning rate, and drop their gradients."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["relative_lr"]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale all gradients by one factor so that their norm is at most `largest`; the norm before, on the device."""
    dense: list[nn.Parameter] = []
    sparse: list[Tensor] = []
    gradients: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            # A row that was read several times stands there as often until it is summed.
            parameter.grad = parameter.grad.coalesce()
            sparse.append(parameter.grad.values())
            gradients.append(sparse[-1])
        else:
            dense.append(parameter)
            gradients.append(parameter.grad)
    norm = nn.utils.get_total_norm(gradients)
    nn.utils.clip_grads_with_norm_(dense, largest, norm)
    for values in sparse:
        values.mul_((largest / (norm + 1e-6)).clamp(max=1.0))
    return norm
