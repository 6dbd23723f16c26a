"""Byte ids: the whole vocabulary is 256 byte values and two document marks.

>>> decode(encode("né"))
b'n\\xc3\\xa9'
"""

import codecs

import numpy as np
import numpy.typing as npt

BOS = 256
"""Opens every document; carries the highest level."""
EOS = 257
"""Closes every document; predicted, never read."""
VOCAB_SIZE = 258

Text = str | bytes | bytearray | memoryview
"""What is taken for a text: characters, or any bytes."""


def encode(text: Text) -> npt.NDArray[np.uint8]:
    """Bytes of a text as ids, uint8 [n]. Lone surrogates, which UTF-8 cannot hold, become U+FFFD."""
    return np.frombuffer(to_bytes(text), dtype=np.uint8)


def decode(ids: npt.ArrayLike) -> bytes:
    """The bytes among `ids` [n]; document marks are dropped."""
    array = np.asarray(ids)
    return array[array < BOS].astype(np.uint8).tobytes()


def to_bytes(text: Text) -> bytes:
    """UTF-8 bytes of a text; bytes are returned as they are. Lone surrogates become U+FFFD.

    >>> to_bytes("a\\ud800")
    b'a\\xef\\xbf\\xbd'
    """
    if isinstance(text, bytes | bytearray | memoryview):
        return bytes(text)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


class Utf8Stream:
    """Turns bytes that arrive one by one into valid text: incomplete characters are held back, never lost.

    >>> stream = Utf8Stream()
    >>> [stream.push(byte) for byte in "é".encode()], stream.push(0xFF), stream.push(0xE2), stream.flush()
    (['', 'é'], '\N{REPLACEMENT CHARACTER}', '', '\N{REPLACEMENT CHARACTER}')
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, byte: int) -> str:
        """Text completed by this byte; bytes that can never be valid come out as U+FFFD."""
        return self._decoder.decode(bytes([byte]))

    def flush(self) -> str:
        """What is still held back, as U+FFFD."""
        return self._decoder.decode(b"", final=True)
