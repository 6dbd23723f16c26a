"""Scaling laws: y = a C^b for batch size and learning rate, L = E + a C^-b for the loss, with their uncertainty.

Power laws are straight lines in logarithms, fitted by least squares. Loss laws are fitted by a Huber loss on the
residuals of the logarithm, from several starts. Both are fitted to points, of which a budget may have several.

Bands come from a parametric bootstrap: the fit is taken for the truth, noise is added to it in the logarithm, and the
law is fitted again. How large the noise is is itself uncertain where there are few runs, so each sample draws it from
its distribution given the residuals (s^2 (n - p) / chi^2 with n - p degrees of freedom); for straight lines the bands
are those of Student's t. No more points than parameters leave no residual and have no band.
Shapes: n points, S samples, p parameters, C compute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from aunet.errors import AUNetError, MissingExtra

LEVEL = 0.95
SAMPLES = 300
SEED = 0
HUBER = 0.01
"""Residual of the logarithm from which on a point counts as an outlier: 1% of the loss."""
FULL_BUDGETS = 5
"""Budgets from which on three parameters are fitted."""
SAME_BUDGET = 1.25
"""Runs whose compute differs by less than this factor belong to one budget."""

Vector = npt.NDArray[np.float64]
Kind = Literal["E + a C^-b", "E + a C^-b, E given", "a C^-b"]


def budgets(compute: Sequence[float]) -> list[int]:
    """The budget of each run, numbered from the smallest; the next one begins SAME_BUDGET above the first run of one.

    >>> budgets([1e13, 3.1e13, 1.04e13, 2.9e13])
    [0, 1, 0, 1]
    """
    found = [0] * len(compute)
    number, first = -1, 0.0
    for i in sorted(range(len(compute)), key=lambda i: compute[i]):
        if number < 0 or compute[i] > SAME_BUDGET * first:
            number, first = number + 1, compute[i]
        found[i] = number
    return found


@dataclass(frozen=True)
class FittedPowerLaw:
    """y = a C^b."""

    log_a: float
    """At C = 1, which is far from all budgets: a steep law has an `a` that no float holds."""
    b: float
    points: int
    samples: Vector | None
    """(log a at C = 1, b) of every sample, [S, 2]; None without a band."""

    parameters: ClassVar[tuple[str, ...]] = ("a", "b")

    @property
    def a(self) -> float:
        """The law at C = 1."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.log_a))

    def at(self, compute: float) -> float:
        """The law at a compute."""
        return float(np.exp(self.log_a + self.b * np.log(compute)))

    def band(self, compute: float) -> tuple[float, float] | None:
        """Bounds of the law at a compute."""
        if self.samples is None:
            return None
        return _exp_bounds(self.samples[:, 0] + self.samples[:, 1] * np.log(compute))

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]] | None:
        """Bounds of each parameter."""
        if self.samples is None:
            return None
        return {"a": _exp_bounds(self.samples[:, 0]), "b": _bounds(self.samples[:, 1])}


@dataclass(frozen=True)
class LossLaw:
    """L = E + a C^-b."""

    kind: Kind
    E: float
    a: float
    b: float
    points: int
    samples: Vector | None
    """(E, log a, b) of every sample, [S, 3]; None without a band."""

    parameters: ClassVar[tuple[str, ...]] = ("E", "a", "b")

    def at(self, compute: float) -> float:
        """The law at a compute."""
        return float(self.E + self.a * compute**-self.b)

    def band(self, compute: float) -> tuple[float, float] | None:
        """Bounds of the law at a compute."""
        if self.samples is None:
            return None
        return _bounds(self.samples[:, 0] + np.exp(self.samples[:, 1] - self.samples[:, 2] * np.log(compute)))

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]] | None:
        """Bounds of each parameter; E and a lean on each other, so the band says more than they do."""
        if self.samples is None:
            return None
        E, log_a, b = self.samples.T
        return {"E": _bounds(E), "a": _exp_bounds(log_a), "b": _bounds(b)}


def fit_power(
    compute: Sequence[float], values: Sequence[float], seed: int = SEED, samples: int = SAMPLES
) -> FittedPowerLaw:
    """Fit y = a C^b; AUNetError if all runs belong to one budget."""
    _need_budgets(compute, 2)
    x_n, y_n = np.log(np.asarray(compute)), np.log(np.asarray(values))
    middle = x_n.mean()
    design_n2 = np.stack([np.ones_like(x_n), x_n - middle], axis=1)
    theta_2 = np.linalg.lstsq(design_n2, y_n)[0]
    drawn_S2 = None
    if (noise_Sn := _noise(y_n - design_n2 @ theta_2, 2, seed, samples)) is not None:
        refitted_S2 = (np.linalg.pinv(design_n2) @ (design_n2 @ theta_2 + noise_Sn).T).T
        drawn_S2 = np.stack([refitted_S2[:, 0] - refitted_S2[:, 1] * middle, refitted_S2[:, 1]], axis=1)
    return FittedPowerLaw(float(theta_2[0] - theta_2[1] * middle), float(theta_2[1]), len(x_n), drawn_S2)


def fit_loss(
    compute: Sequence[float],
    losses: Sequence[float],
    irreducible: float | None = None,
    seed: int = SEED,
    samples: int = SAMPLES,
) -> LossLaw:
    """Fit L = E + a C^-b, with E as given, or 0 where fewer than FULL_BUDGETS budgets could not tell it.

    AUNetError if all runs belong to one budget, or if E is not below every loss.
    """
    _need_budgets(compute, 2)
    C_n, L_n = np.asarray(compute, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if irreducible is not None and not 0 <= irreducible < L_n.min():
        raise AUNetError(f"--irreducible: {irreducible:g} is not between 0 and the lowest loss, {L_n.min():.4f}")
    few = max(budgets(compute)) + 1 < FULL_BUDGETS
    fixed = irreducible if irreducible is not None else 0.0 if few else None
    model = _LossModel(C_n, fixed)
    theta_p = model.fit(L_n, model.starts(L_n))
    fitted_n = model.predict(theta_p)
    drawn_S3 = None
    if (noise_Sn := _noise(np.log(L_n / fitted_n), len(theta_p), seed, samples)) is not None:
        drawn_S3 = np.array([model.unscaled(model.fit(fitted_n * np.exp(noise_n), [theta_p])) for noise_n in noise_Sn])
    E, log_a, b = model.unscaled(theta_p)
    kind: Kind = "E + a C^-b" if fixed is None else "E + a C^-b, E given" if irreducible is not None else "a C^-b"
    return LossLaw(kind, E, float(np.exp(log_a)), b, len(C_n), drawn_S3)


class _LossModel:
    """L = E + exp(A) (C / C0)^-b, C0 the middle of the points, of the parameters (A, b), or (A, b, E) if E is free."""

    def __init__(self, C_n: Vector, fixed: float | None) -> None:
        self._x_n = np.log(C_n) - np.log(C_n).mean()
        self._middle = float(np.log(C_n).mean())
        self._fixed = fixed

    def predict(self, theta_p: Vector) -> Vector:
        """Losses, [n]."""
        return self._E(theta_p) + self._power(theta_p)

    def _E(self, theta_p: Vector) -> float:
        return float(theta_p[2]) if self._fixed is None else self._fixed

    def _power(self, theta_p: Vector) -> Vector:
        powers: Vector = np.exp(theta_p[0] - theta_p[1] * self._x_n)
        return powers

    def starts(self, L_n: Vector) -> list[Vector]:
        """Shares of E in the lowest loss, and exponents."""
        shares = [0.2, 0.5, 0.8, 0.95] if self._fixed is None else [0.0]
        found = []
        for share in shares:
            E = self._fixed if self._fixed is not None else share * L_n.min()
            for b in (0.03, 0.1, 0.3):
                theta = [np.log(max(float(np.median(L_n)) - E, 1e-6)), b]
                found.append(np.array(theta if self._fixed is not None else [*theta, E]))
        return found

    def fit(self, L_n: Vector, starts: Sequence[Vector]) -> Vector:
        """The best of the local minima that the starts lead to."""
        bounds = ([-12.0, 0.0, 0.0], [6.0, 3.0, float(L_n.min())])
        low_p, high_p = (np.array(side)[: len(starts[0])] for side in bounds)

        def residuals(theta_p: Vector) -> Vector:
            return np.asarray(np.log(self.predict(theta_p) / L_n))

        def jacobian(theta_p: Vector) -> Vector:
            power_n, total_n = self._power(theta_p), self.predict(theta_p)
            columns = [power_n, -power_n * self._x_n]
            if self._fixed is None:
                columns.append(np.ones_like(power_n))
            return np.stack(columns, axis=1) / total_n[:, None]

        solve = _least_squares()
        results = [
            solve(
                residuals,
                np.clip(start, low_p + 1e-9, high_p - 1e-9),
                jac=jacobian,
                bounds=(low_p, high_p),
                loss="huber",
                f_scale=HUBER,
                method="dogbox",
            )
            for start in starts
        ]
        best: Vector = min(results, key=lambda result: result.cost).x
        return best

    def unscaled(self, theta_p: Vector) -> tuple[float, float, float]:
        """(E, log a, b) of E + a C^-b."""
        b = float(theta_p[1])
        return self._E(theta_p), float(theta_p[0]) + b * self._middle, b


def _noise(residuals_n: Vector, parameters: int, seed: int, samples: int) -> Vector | None:
    """Noise for every sample, [S, n]; None where there are no more points than parameters."""
    free = len(residuals_n) - parameters
    if free < 1:
        return None
    generator = np.random.default_rng(seed)
    scale_S = np.sqrt((residuals_n**2).sum() / generator.chisquare(free, size=samples))
    return np.asarray(scale_S[:, None] * generator.standard_normal((samples, len(residuals_n))))


def _bounds(samples_S: Vector) -> tuple[float, float]:
    low, high = np.quantile(samples_S, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _exp_bounds(logs_S: Vector) -> tuple[float, float]:
    """Bounds of what is given by its logarithm; one that no float holds is infinite."""
    with np.errstate(over="ignore"):
        low, high = np.exp(_bounds(logs_S))
    return float(low), float(high)


def _need_budgets(compute: Sequence[float], needed: int) -> None:
    found = len(set(budgets(compute)))
    if found < needed:
        raise AUNetError(
            f"a law needs runs at {needed} budgets at least, these are of {found}; train at another compute"
        )


def _least_squares() -> Any:
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise MissingExtra("scipy", "scale", "fitting a law of the loss") from None
    return least_squares
