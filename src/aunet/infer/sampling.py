"""From logits to the next id."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aunet.bytes import BOS
from aunet.errors import ConfigError


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

    def generator(self) -> torch.Generator:
        """A new generator at the seed."""
        return torch.Generator().manual_seed(self.seed)

    def draw(self, logits_V: Tensor, generator: torch.Generator) -> int:
        """The next id. BOS opens a document and is never drawn."""
        scores_V = logits_V.detach().float().cpu().clone()
        scores_V[BOS] = -math.inf
        if self.temperature == 0:
            return int(scores_V.argmax())
        scores_V = scores_V / self.temperature
        if self.top_k is not None and self.top_k < scores_V.shape[0]:
            scores_V[scores_V < scores_V.topk(self.top_k).values[-1]] = -math.inf
        weights_V = scores_V.softmax(0)
        if self.top_p is not None and self.top_p < 1:
            ordered_V, order_V = weights_V.sort(descending=True, stable=True)
            beyond_V = ordered_V.cumsum(0) - ordered_V >= self.top_p
            weights_V[order_V[beyond_V]] = 0.0
        return int(torch.multinomial(weights_V, 1, generator=generator))
