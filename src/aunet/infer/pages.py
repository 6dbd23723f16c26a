"""What a stage remembers: keys and values of the positions that were read, in pages, or states of a recurrence.

Shapes: L blocks of a stage, G key/value heads, S slots of a page, K head width.

    positions      0 ... 63 | 64 ... 127 | 128 ... 150
    pages          page 0     page 1       page 2        one tensor [L, 2, G, S, K] each

A sequence holds a list of pages, so sequences of any lengths share a batch, join it and leave it without anything being
copied. Copies of a sequence share its pages; only the last one, which still fills up, is copied by whoever writes to it
first. In a stage with a window, pages that no later position can see are let go. Keys are turned to their positions
before they are stored. A Mamba-2 block has one state of constant size instead, which is replaced and never written to.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from aunet.model.mamba import MambaState

SLOTS = 64
"""Positions of a page."""

MakePage = Callable[[], "Page"]


class Page:
    """Keys and values of SLOTS consecutive positions in all blocks of a stage."""

    __slots__ = ("address", "data", "keys", "shared", "values")

    def __init__(self, data: Tensor) -> None:
        self.data = data
        """[L, 2, G, S, K]"""
        self.keys, self.values = data[:, 0].unbind(0), data[:, 1].unbind(0)
        """Per block, [G, S, K]."""
        self.address = data.data_ptr()
        self.shared = False
        """Whether several sequences hold it: then nobody may write to it."""

    @property
    def nbytes(self) -> int:
        """Its memory."""
        return self.data.nbytes


@dataclass
class Memory:
    """What one stage remembers of one sequence."""

    window: int | None
    seen: int = 0
    """Positions read."""
    pages: list[Page] = field(default_factory=list)
    first: int = 0
    """Pages that were let go."""
    states: dict[int, MambaState] = field(default_factory=dict)
    """Of the stage's Mamba-2 blocks, by layer; a block that has read nothing is not there."""
    coarse_E: Tensor | None = None
    """Last output vector of the next deeper stage; None before the first, and in the trunk."""
    offset: int = 0
    """Distance of the next position from the pool position of that vector."""
    table: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Addresses of the pages, for kernels that are not Python;"""
    where: int = 0
    """and the address of this table."""

    def reserve(self, new: int, make: MakePage) -> None:
        """Pages for the next `new` positions; lets go of those that none of them sees."""
        changed = False
        unseen = self.visible(self.seen) // SLOTS - self.first
        if unseen > 0:
            del self.pages[:unseen]
            self.first += unseen
            changed = True
        if self.pages and self.pages[-1].shared and self.seen < (self.first + len(self.pages)) * SLOTS:
            own = make()
            own.data.copy_(self.pages[-1].data)
            self.pages[-1] = own
            changed = True
        while (self.first + len(self.pages)) * SLOTS < self.seen + new:
            self.pages.append(make())
            changed = True
        if changed:
            self._tabulate()

    def go_back(self, seen: int) -> None:
        """Forget the last positions, of those that were read last; their slots are written over."""
        self.seen = seen
        if len(self.pages) > -(-seen // SLOTS) - self.first:
            del self.pages[-(-seen // SLOTS) - self.first :]
            self._tabulate()

    def visible(self, position: int) -> int:
        """The first position that this one sees."""
        return 0 if self.window is None else max(0, position - self.window + 1)

    def _tabulate(self) -> None:
        self.table = np.array([page.address for page in self.pages], dtype=np.int64)
        self.where = self.table.ctypes.data

    def copy(self) -> "Memory":
        """An independent memory of the same positions."""
        for page in self.pages[-1:]:
            page.shared = True
        return replace(self, pages=list(self.pages), states=dict(self.states))
