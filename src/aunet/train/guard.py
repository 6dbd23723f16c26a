"""Updates that are skipped: what is not finite, and where it is asked for what stands far out of the recent past.

The decision is made on the device, from numbers that are the same on all ranks, so that none waits for another or for
the host. A skipped update leaves weights and optimizer as they were; the data moves on.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aunet.config import TrainConfig
from aunet.errors import RunFailed

WINDOW = 128
"""Updates whose losses and norms are remembered, and steps among which skipped ones are counted."""
KNOWN = 32
"""Updates that must be remembered before a spike is one: the first ones fall too fast to compare with."""


class Guard:
    """Judges every step. An update is skipped if its loss or gradient norm

    - is not finite, or
    - with `train.spike` is more than so many times its median over the last 128 updates that were made.

    More than `train.max_skips` skipped among 128 steps end the run.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config = config
        self._past = torch.full((2, WINDOW), math.nan, device=device)
        """Loss and gradient norm of the last updates, as a ring."""
        self._made = torch.zeros((), dtype=torch.int64, device=device)
        self._recent = torch.zeros(WINDOW, device=device)
        """1 where one of the last steps was skipped, as a ring."""
        self._most = torch.zeros((), device=device)
        """So many of a window of steps at the most: whoever checks now and then would miss those that are forgotten."""
        self._skipped = torch.zeros((), device=device)
        self._places = torch.arange(WINDOW, device=device)
        self._health = torch.zeros(4)

    def judge(self, step: int, loss: Tensor, norm: Tensor) -> Tensor:
        """1.0 if the update of this step is to be skipped, else 0.0, on the device."""
        now = torch.stack([loss, norm]).float()
        good = now.isfinite().all()
        if self.config.spike:
            usual = self._past.nanmedian(dim=1).values
            good &= (now <= self.config.spike * usual).all() | (self._made < KNOWN)
        here = good & (self._places == self._made % WINDOW)
        self._past = torch.where(here, now[:, None], self._past)
        self._made = self._made + good
        skip = 1.0 - good.float()
        self._recent[step % WINDOW] = skip
        self._most = torch.maximum(self._most, self._recent.sum())
        self._skipped = self._skipped + skip
        self._health = torch.stack([*now, self._most, self._skipped])
        return skip

    def check(self, step: int, mend: str, last: bool = False) -> tuple[bool, int]:
        """Whether this step was finite, and how many were skipped so far; waits for the device.

        RunFailed, which names the mend, where too many were skipped, or where the `last` step was not finite.
        """
        loss, norm, most, skipped = self._health.tolist()
        finite = math.isfinite(loss) and math.isfinite(norm)
        if most > self.config.max_skips or (last and not finite):
            raise RunFailed(
                f"step {step}: the loss is {loss:.4g}, the gradient norm {norm:.4g}, and of "
                f"{min(step, WINDOW)} updates in a row {most:.0f} were skipped "
                f"(train.max_skips is {self.config.max_skips}); {mend}"
            )
        return finite, int(skipped)

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        made = int(self._made)
        return {
            "past": self._past[:, : min(made, WINDOW)].tolist(),
            "made": made,
            "recent": self._recent.nonzero().flatten().tolist(),
            "skipped": int(self._skipped),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        past = torch.tensor(state["past"], dtype=torch.float32).reshape(2, -1)
        self._past[:, : past.shape[1]] = past.to(self._past.device)
        self._made.fill_(state["made"])
        self._recent[state["recent"]] = 1.0
        self._skipped.fill_(state["skipped"])
        self._most = self._recent.sum()
        zero = torch.zeros_like(self._skipped)
        self._health = torch.stack([zero, zero, self._most, self._skipped])
