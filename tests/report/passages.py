"""Passages for the tests of what is shown."""

import numpy as np
from hypothesis import strategies as st

from aunet.report.passage import Passage
from aunet.splitting import splitter

RULES = ("word1", "word1+word2", "word1+word2+word4", "pretok", "fixed-3", "fixed-2+fixed-4")

NASTY = (
    "<script>alert('&amp;')</script> a|b\\x41\t\r\n\n\x00\x1b[31m\u202e\u2028 naïve 日本語 e\u0301 👩‍👩‍👧 ".encode()
    + (b"\xff\xc3\xe2\x82 \xed\xa0\x80 </SCRIPT><!-- ]]> \"'")
)
"""What breaks pages and terminals: markup, quotes, controls, bidi overrides, invalid UTF-8, cut characters."""


def make(data: bytes, rule: str = "word1+word2", with_bits: bool = True) -> Passage:
    """A passage with real levels and bits that differ at every byte."""
    found = splitter(rule)
    bits = np.arange(len(data)) % 97 / 8 if with_bits else None
    return Passage(data, found.levels(data), bits, 2.0 if with_bits else None, found.depth + 1)


def texts() -> st.SearchStrategy[bytes]:
    """Byte strings: any bytes, text of any characters, and pieces of the nasty one."""
    pieces = st.lists(st.sampled_from([NASTY[i : i + 7] for i in range(0, len(NASTY), 5)])).map(b"".join)
    text = st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(st.binary(max_size=60), text, pieces)
