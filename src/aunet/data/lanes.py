"""Lanes: an endless sequence of rows from a fixed part of a source, which can go on from any row.

A lane reads its blocks, in an order drawn anew for every epoch, into windows of bounded size, and shuffles the
documents of each window:

    blocks of the epoch  -> | window | window | ...      at most shuffle_documents and about shuffle_bytes each
    documents, shuffled  -> pieces -> rows

Its state says where the next row starts: the window by the place where its reading started, the document in the
shuffled window, the cut in the document. Going on reads that window again and nothing else of a seekable file.
Everything drawn depends on (seed, source, lane, epoch, start of the window) alone.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from aunet.data.blocks import Block
from aunet.data.formats import FORMATS
from aunet.data.problems import Problems
from aunet.data.rows import Piece, Row, build_row, piece_stop
from aunet.data.text import Text, read
from aunet.errors import AUNetError
from aunet.splitting import Splitter
from aunet.vocabulary import BYTES, Vocabulary


class LaneState(NamedTuple):
    """Where the next row of a lane starts."""

    epoch: int = 0
    block: int = 0
    """Index in the order of the epoch, of the block in which the window starts."""
    position: int = 0
    """Where in the block it starts."""
    doc: int = 0
    """Index in the shuffled window."""
    cut: int = 0
    """Id in the document."""


class LaneSpec(NamedTuple):
    """What a lane is; small, and can be sent to a process."""

    source: int
    lane: int
    blocks: tuple[Block, ...]
    text_field: str
    seed: int
    seq_len: int
    shuffle_documents: int
    shuffle_bytes: int


class LaneRow(NamedTuple):
    """A row, the state after it, and the problems met on the way to it, each reported once in the first epoch."""

    row: Row | None
    """None where it was passed over."""
    state: LaneState
    problems: Problems


class Lane:
    """Emits rows from `state` on, for ever."""

    def __init__(
        self, spec: LaneSpec, splitter: Splitter, state: LaneState | None = None, vocabulary: Vocabulary = BYTES
    ) -> None:
        self.spec = spec
        self.splitter, self.vocabulary = splitter, vocabulary
        self.state = state or LaneState()
        self._stream = self._read(self.state)
        self._problems = Problems()
        self._of_window = Problems()
        self._of_row = Problems()
        self._window: list[bytes] = []
        self._after = self.state  # the window after this one
        self._text: Text | None = None

    def next_row(self, build: bool = True) -> LaneRow:
        """The next row, or without `build` only the state after it.

        AUNetError if the files of the lane have become unusable since the plan was made.
        """
        spec, depth = self.spec, self.splitter.depth
        pieces: list[Piece] = []
        room = spec.seq_len
        while room:
            text = self._document()
            start = self.state.cut
            stop = piece_stop(text.levels, start, room, spec.seq_len, depth)
            if stop is None:
                break
            if self.state.doc == 0 and start == 0:
                # With the first piece of a window, so that a lane that goes on from here knows what was reported.
                self._of_row.merge(self._of_window.take())
            pieces.append(Piece(*text, start, stop))
            room -= stop - start
            self._advance(stop, len(text.ids))
            if stop < len(text.ids):
                break
        row = build_row(pieces, depth, self.vocabulary) if build else None
        return LaneRow(row, self.state, self._of_row.take())

    def _document(self) -> Text:
        if not self._window:
            self._fill()
        if self._text is None:
            self._text = read(self._window[self.state.doc], self.splitter, self.vocabulary)
        return self._text

    def _advance(self, stop: int, length: int) -> None:
        if stop < length:
            self.state = self.state._replace(cut=stop)
            return
        self._text = None
        self.state = self.state._replace(doc=self.state.doc + 1, cut=0)
        if self.state.doc == len(self._window):
            self.state = self._after
            self._window = []

    def _fill(self) -> None:
        """Read the window that starts at the state and shuffle it; moves the state past ends of epochs."""
        for _ in range(2):
            window, size = [], 0
            after = LaneState(self.state.epoch + 1)
            for block, position, document in self._stream:
                window.append(document)
                size += len(document)
                if len(window) == self.spec.shuffle_documents or size >= self.spec.shuffle_bytes:
                    after = LaneState(self.state.epoch, block, position)
                    break
            found = self._problems.take()
            # Bad input is the same in every epoch, and was reported before if the state is inside the window.
            if self.state.epoch == 0 and self.state.doc == 0 and self.state.cut == 0:
                # After the last document of an epoch: the state moves past it now, not with a piece.
                (self._of_window if window else self._of_row).merge(found)
            if after.epoch != self.state.epoch:
                self._stream = self._read(after)
            if window:
                order = self._draw(len(window), *self.state[:3])
                self._window = [window[i] for i in order]
                self._after = after
                return
            self.state = after
        raise AUNetError(f"{self.spec.blocks[0].path}: has no documents any more; the file changed")

    def _read(self, state: LaneState) -> Iterator[tuple[int, int, bytes]]:
        """(block, position after it, document) from a state to the end of its epoch."""
        blocks = self.spec.blocks
        order = self._draw(len(blocks), state.epoch)
        for index in range(state.block, len(blocks)):
            block = blocks[order[index]]
            position = state.position if index == state.block else 0
            reading = FORMATS[block.format].read(block, position, self.spec.text_field, self._problems)
            for after, document in reading:
                yield index, after, document

    def _draw(self, n: int, *place: int) -> Sequence[int]:
        """A permutation of n; from raw bits, whose stream numpy keeps the same in all its versions."""
        seeds = np.random.SeedSequence([self.spec.seed, self.spec.source, self.spec.lane, *place])
        keys = np.random.PCG64(seeds).random_raw(n)
        order: list[int] = np.argsort(keys, kind="stable").tolist()
        return order
