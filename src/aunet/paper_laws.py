"""The paper's laws of the batch and of the learning rate by compute (section 3)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PowerLaw:
    """factor C^exponent, C the compute of a run in paper FLOPs.

    >>> f"{PowerLaw(2.0, 0.5)(100):g}"
    '20'
    """

    factor: float
    exponent: float

    def __call__(self, compute: float) -> float:
        """What the law gives for a compute."""
        return float(self.factor * compute**self.exponent)

    def solved(self, rest: float) -> float:
        """The x for which x = factor (x rest)^exponent: a batch on which the compute depends."""
        return float(self(rest) ** (1 / (1 - self.exponent)))


@dataclass(frozen=True)
class Laws:
    """Those of one kind of system."""

    batch: PowerLaw
    """Ids per step."""
    lr: PowerLaw
    """Highest learning rate."""


LAWS = {
    "byte": Laws(PowerLaw(0.66, 0.321), PowerLaw(6.6, -0.176)),
    "token": Laws(PowerLaw(29.9, 0.231), PowerLaw(19.3, -0.177)),
}
"""Of AU-Nets and whatever else reads bytes, and of the Transformer over tokens, by `AUNetConfig.unit`."""
LAW_RANGE = (1e18, 1e22)
"""Paper FLOPs between which the laws were fitted, to one digit as budgets are named: aunet2-1e22 takes 1.12e22."""
