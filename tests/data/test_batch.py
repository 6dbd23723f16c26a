import numpy as np
import torch
from corpora import Residues

from aunet.data import collate
from aunet.data.rows import Piece, build_row
from aunet.data.text import read
from aunet.vocabulary import BYTES

RULE = Residues()


def row(*texts):
    return build_row([Piece(*read(text, RULE, BYTES), 0, len(text)) for text in texts], RULE.depth)


def test_rows_end_to_end_without_padding():
    rows = [row(b"one", b"three"), row(b"fourteen"), row(b"x")]
    batch = collate(rows)
    assert batch.starts.tolist() == [0, 4, 10, 19, 21]
    assert batch.bytes == 17
    assert batch.counts[0] == len(batch.ids) == 21
    assert batch.counts == tuple(sum(one.counts[s] for one in rows) for s in range(3))
    assert (batch.ids.dtype, batch.targets.dtype, batch.starts.dtype) == (torch.int64,) * 3
    assert batch.levels.dtype == torch.uint8
    for name in ("ids", "targets", "levels"):
        expected = np.concatenate([getattr(one, name) for one in rows])
        assert getattr(batch, name).tolist() == expected.tolist()


def test_one_row():
    batch = collate([row(b"a")])
    assert batch.starts.tolist() == [0, 2]
    assert batch.ids.tolist() == [256, ord("a")]
