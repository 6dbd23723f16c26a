"""What every splitter offers, whatever its rule."""

from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.uint8]
"""Levels of the bytes of one document, uint8 [n]."""


class Stream(Protocol):
    """Levels of one document whose bytes arrive one by one, in constant time and space per byte."""

    def push(self, byte: int) -> int:
        """Level of the next byte (0..255); never depends on what follows."""
        ...

    def copy(self) -> Self:
        """An independent stream at the same place (a few integers: cheap enough for every prompt and beam)."""
        ...


class Splitter(Protocol):
    """Levels of the bytes of a document: how many poolings the vector at each byte survives.

    For every byte string, `levels(data)[i]` depends on `data[: i + 1]` alone and equals what a stream gives for byte i.
    Document marks are the caller's: BOS carries the highest level and is not part of `data`.
    """

    @property
    def rule(self) -> str:
        """The name from which `aunet.splitting.splitter` builds this splitter."""
        ...

    @property
    def depth(self) -> int:
        """The highest level; a model needs depth + 1 stages."""
        ...

    def levels(self, data: bytes) -> Levels:
        """Levels of a whole document, uint8 [len(data)], each in 0..depth."""
        ...

    def stream(self) -> Stream:
        """A stream at the start of a document."""
        ...
