"""Rows: how documents are cut and packed.

A document of n ids, bytes or tokens, makes n + 1 positions. Position 0 reads BOS, position i the id i - 1; each
predicts what the next one reads, the last one EOS:

    reads    BOS  b0   b1   ...  b(n-1)
    predicts b0   b1   b2   ...  EOS

A piece holds the ids [start, stop) of a document, and BOS where start is 0. A cut before id c ends one piece at the
position that predicts c and starts the next one at the position that reads c, so no position and no target is lost.

T positions of a row; N pieces in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aunet.vocabulary import BYTES, Ids, Vocabulary


class Piece(NamedTuple):
    """The ids [start, stop) of a document."""

    ids: Ids
    """Of the whole document, [n]."""
    levels: npt.NDArray[np.uint8]
    """Of the whole document, uint8 [n]."""
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """At most seq_len ids of text: a piece of one document, or several short documents end to end."""

    ids: npt.NDArray[np.int32]
    """What each position reads, [T]."""
    targets: npt.NDArray[np.int32]
    """What each position predicts, [T]."""
    levels: npt.NDArray[np.uint8]
    """[T]; the highest level at the first position of every piece."""
    starts: npt.NDArray[np.int32]
    """Where the pieces start, and T, [N + 1]; pieces never see each other."""
    counts: tuple[int, ...]
    """Units of each stage: positions whose level is at least 0, 1, ..., depth."""
    units: int
    """Ids of text that the row reads, without document marks."""
    bytes: int
    """Bytes of text that these stand for."""


def piece_stop(levels: npt.NDArray[np.uint8], start: int, room: int, seq_len: int, depth: int) -> int | None:
    """Where the piece that starts at id `start` ends in a row that has room for `room` ids; None: in a new row.

    What is left of a document stays whole if it fits into any row. Otherwise it is cut just before the last id of the
    highest level that lies in the second half of the room, or at its end if there is none. A room of less than half a
    row is left empty then, because a short piece would only cost the rest of the document its context.
    """
    left = len(levels) - start
    if left <= room:
        return len(levels)
    if left <= seq_len or 2 * room < seq_len:
        return None
    nearest, furthest = start + max(room // 2, 1), start + room
    cuts = np.flatnonzero(levels[nearest : furthest + 1] == depth)
    return nearest + int(cuts[-1]) if len(cuts) else furthest


def build_row(pieces: Sequence[Piece], depth: int, vocabulary: Vocabulary = BYTES) -> Row:
    """Lay pieces end to end."""
    lengths = [piece.stop - piece.start + (piece.start == 0) for piece in pieces]
    starts = np.zeros(len(pieces) + 1, dtype=np.int32)
    np.cumsum(lengths, out=starts[1:])
    total = int(starts[-1])
    ids, targets = np.empty(total, dtype=np.int32), np.empty(total, dtype=np.int32)
    levels = np.empty(total, dtype=np.uint8)
    for (text, document_levels, start, stop), first, end in zip(pieces, starts[:-1], starts[1:], strict=True):
        ids[first] = vocabulary.bos
        ids[end - (stop - start) : end] = text[start:stop]
        levels[end - (stop - start) : end] = document_levels[start:stop]
        levels[first] = depth
        following = text[start + (start > 0) : stop + 1]
        targets[first : first + len(following)] = following
        if stop == len(text):
            targets[end - 1] = vocabulary.eos
    kept = np.bincount(levels, minlength=depth + 1)[::-1].cumsum()[::-1]
    return Row(
        ids=ids,
        targets=targets,
        levels=levels,
        starts=starts,
        counts=tuple(int(count) for count in kept),
        units=sum(piece.stop - piece.start for piece in pieces),
        bytes=int(vocabulary.lengths(ids).sum()),
    )
