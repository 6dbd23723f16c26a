"""AdamW as the paper trains (Appendix B): weight decay on matrices only."""

import torch
from torch import nn

from aunet.config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with two groups: matrices with weight decay, gains of norms without."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    # The learning rate is set at every step from the plan.
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)
