"""What a model reads of a document: the ids of its vocabulary and their levels."""

from typing import NamedTuple

import numpy as np

from aunet.splitting import Levels, Splitter
from aunet.vocabulary import Ids, Vocabulary


class Text(NamedTuple):
    """A document of n ids, without marks."""

    ids: Ids
    """[n]"""
    levels: Levels
    """uint8 [n]"""


def read(data: bytes, splitter: Splitter, vocabulary: Vocabulary) -> Text:
    """The ids of a document and their levels. Without a splitter all levels are 0, whatever the ids stand for."""
    ids = vocabulary.encode(data)
    return Text(ids, splitter.levels(data) if splitter.depth else np.zeros(len(ids), dtype=np.uint8))
