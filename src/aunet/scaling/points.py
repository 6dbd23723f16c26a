"""Quasi-random points of learning rate and batch size, log-uniform in a box."""

from typing import Any, NamedTuple

from aunet.errors import MissingExtra

Range = tuple[float, float]
"""Lowest and highest."""


class Point(NamedTuple):
    """What a run is given."""

    lr: float
    batch: float
    """Units per step, before it is made whole rows."""


def optuna() -> Any:
    """The package, quiet; MissingExtra where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise MissingExtra("optuna", "scale", "aunet scale sweep") from None
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    return optuna


def distributions(lr: Range, batch: Range) -> dict[str, Any]:
    """The box as Optuna's distributions."""
    kind = optuna().distributions.FloatDistribution
    return {"lr": kind(*lr, log=True), "batch": kind(*batch, log=True)}


def sobol_point(lr: Range, batch: Range, seed: int, index: int) -> Point:
    """Point `index` of the scrambled Sobol sequence of a seed; the same on every machine.

    The points are drawn in a study of their own. In a shared one the sampler would draw the first point at random, and
    give one point to two workers that ask at the same time.
    """
    package, box = optuna(), distributions(lr, batch)
    sampler = package.samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=seed)
    study = package.create_study(sampler=sampler)
    study.add_trial(package.create_trial(params={"lr": lr[0], "batch": batch[0]}, distributions=box, value=0.0))
    params: dict[str, float] = {}
    for _ in range(index + 1):
        params = study.ask(box).params
    return Point(params["lr"], params["batch"])
