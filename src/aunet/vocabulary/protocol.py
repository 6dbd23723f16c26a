"""What every vocabulary offers, and the one of bytes.

The ids of a model of V ids are 0 .. V - 3 for text, then BOS (V - 2) and EOS (V - 1). Shapes: n ids of a text.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from aunet.bytes import BOS, EOS, VOCAB_SIZE, decode

Ids = npt.NDArray[np.integer]


class Vocabulary(Protocol):
    """Ids of texts and back. For every byte string `decode(encode(data)) == data`."""

    @property
    def size(self) -> int:
        """Number of ids V, BOS and EOS included."""
        ...

    @property
    def bos(self) -> int:
        """Opens every document; V - 2."""
        ...

    @property
    def eos(self) -> int:
        """Closes every document; V - 1."""
        ...

    @property
    def unit(self) -> Literal["byte", "token"]:
        """What an id of text stands for."""
        ...

    @property
    def digest(self) -> str:
        """Tells vocabularies apart; '' for bytes."""
        ...

    def encode(self, data: bytes) -> Ids:
        """The ids of a text, [n]. AUNetError for a text that they would not give back exactly."""
        ...

    def decode(self, ids: npt.ArrayLike) -> bytes:
        """The bytes that ids [n] stand for; document marks are dropped."""
        ...

    def lengths(self, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """How many bytes each id stands for, [n]; 0 for document marks."""
        ...


@dataclass(frozen=True)
class Bytes:
    """The id of a byte is its value."""

    size: int = VOCAB_SIZE
    bos: int = BOS
    eos: int = EOS
    unit: Literal["byte", "token"] = "byte"
    digest: str = ""

    def encode(self, data: bytes) -> Ids:
        """The bytes themselves, uint8 [n]."""
        return np.frombuffer(data, dtype=np.uint8)

    def decode(self, ids: npt.ArrayLike) -> bytes:
        """The bytes among ids."""
        return decode(ids)

    def lengths(self, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """1 for bytes."""
        return (np.asarray(ids) < BOS).astype(np.int64)


BYTES = Bytes()
