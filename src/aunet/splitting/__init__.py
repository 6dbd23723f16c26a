"""Splitting: which bytes the stages pool at.

A *splitter* gives every byte of a document a level, the number of poolings that the vector at this byte survives. It
does so for whole documents (`levels`) and byte by byte (`stream`), and both agree on every byte string.

>>> splitter("word1").levels("Hello wörld!".encode()).tolist()
[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]
>>> stream = splitter("word1").stream()
>>> [stream.push(byte) for byte in b"Hello "]
[0, 0, 0, 0, 0, 1]
"""

from aunet.splitting.protocol import Levels, Splitter, Stream
from aunet.splitting.rules import RULES, splitter

__all__ = ["RULES", "Levels", "Splitter", "Stream", "splitter"]
