"""From logits to the next id."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aunet.bytes import BOS
from aunet.errors import AUNetError, ConfigError


@dataclass(frozen=True)
class Sampling:
    """How the next id is drawn. Every sequence has a generator of its own, so a batch draws as each would alone."""

    temperature: float = 0.8
    """0 takes the likeliest id."""
    top_k: int | None = None
    """Only the k likeliest ids."""
    top_p: float | None = None
    """Only the likeliest ids that together reach this probability; the likeliest one always."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.temperature < math.inf):
            raise ConfigError(f"temperature: {self.temperature} is not 0 or a positive number")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k: {self.top_k} is not at least 1")
        if self.top_p is not None and not (0 < self.top_p <= 1):
            raise ConfigError(f"top_p: {self.top_p} is not above 0 and at most 1")
        if not (-(2**63) <= self.seed < 2**64):
            raise ConfigError(f"seed: {self.seed} does not fit into 64 bits")

    def generator(self) -> torch.Generator:
        """A new generator at the seed."""
        return torch.Generator().manual_seed(self.seed)

    def draw(self, logits_V: Tensor, generator: torch.Generator) -> int:
        """The next id. BOS opens a document and is never drawn. AUNetError if the logits are not numbers."""
        scores_V = logits_V.detach().float().cpu().clone()
        scores_V[BOS] = -math.inf
        best = scores_V.max()
        if not best.isfinite():
            raise AUNetError(f"the score of the next byte is {best.item()}, not a finite number: the model is broken")
        if self.temperature == 0:
            return int(scores_V.argmax())
        # Below the best one, in float64: no temperature above 0 makes the division overflow.
        scores_V = ((scores_V - best).double() / self.temperature).float()
        if self.top_k is not None and self.top_k < scores_V.shape[0]:
            scores_V[scores_V < scores_V.topk(self.top_k).values[-1]] = -math.inf
        weights_V = scores_V.softmax(0)
        if self.top_p is not None and self.top_p < 1:
            ordered_V, order_V = weights_V.sort(descending=True, stable=True)
            beyond_V = ordered_V.cumsum(0) - ordered_V >= self.top_p
            weights_V[order_V[beyond_V]] = 0.0
        return int(torch.multinomial(weights_V, 1, generator=generator))
