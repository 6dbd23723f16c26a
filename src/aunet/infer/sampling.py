"""From logits to the next id."""

import math
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import numpy.typing as npt

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
        if self.top_k is not None and not (isinstance(self.top_k, Integral) and self.top_k >= 1):
            raise ConfigError(f"top_k: {self.top_k} is not a whole number from 1")
        if self.top_p is not None and not (0 < self.top_p <= 1):
            raise ConfigError(f"top_p: {self.top_p} is not above 0 and at most 1")
        if not (isinstance(self.seed, Integral) and -(2**63) <= self.seed < 2**64):
            raise ConfigError(f"seed: {self.seed} is not a whole number that fits into 64 bits")

    def generator(self) -> np.random.Generator:
        """A new generator at the seed."""
        return np.random.default_rng(int(self.seed) % 2**64)  # one of numpy's has no room for the divisor

    def draw(self, logits_V: npt.NDArray[np.float32], generator: np.random.Generator) -> int:
        """The next id, from one number of the generator. AUNetError if the logits are not numbers.

        BOS, the last id but one of every vocabulary, opens a document and is never drawn.
        """
        scores_V = logits_V.astype(np.float64)
        scores_V[-2] = -math.inf
        best = scores_V.max()
        if not math.isfinite(best):
            raise AUNetError(f"the score of the next id is {best}, not a finite number: the model is broken")
        if self.temperature == 0:
            return int(scores_V.argmax())
        scores_V -= best
        with np.errstate(over="ignore"):  # a temperature near 0 takes the likeliest id
            scores_V /= self.temperature
        weights_V = np.exp(scores_V)
        if self.top_k is not None or (self.top_p is not None and self.top_p < 1):
            order_V = np.argsort(-scores_V, kind="stable")
            kept = len(order_V) if self.top_k is None else self.top_k
            weights_V[order_V[kept:]] = 0.0
            if self.top_p is not None and self.top_p < 1:
                ordered_V = weights_V[order_V]
                before_V = ordered_V.cumsum() - ordered_V
                weights_V[order_V[before_V >= self.top_p * ordered_V.sum()]] = 0.0
        reached_V = weights_V.cumsum()
        drawn = int(reached_V.searchsorted(generator.random() * reached_V[-1], side="right"))
        # A product may round up to the whole sum; the last id with any weight is meant then.
        return drawn if drawn < len(weights_V) else int(weights_V.nonzero()[0][-1])
