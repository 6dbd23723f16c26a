"""General compressors in bits per byte, as a yardstick beside a model.

To keep in mind when comparing: a compressor's output is a file, so a few dozen bytes of headers and checksums count;
it reads all documents as one stream and may use earlier ones for later ones, where a model starts every document anew;
nothing is counted for the ends of documents. `xz_conditional` reads the training text first, as a model does.

>>> text = b"to be or not to be, that is the question; " * 20
>>> xz_conditional(text, text) < xz_bits_per_byte(text) < 8
True
"""

import gzip
import lzma

from aunet.errors import AUNetError

LARGEST_WINDOW = 1536 << 20
"""Bytes back to which xz can refer at most."""


def gzip_bits_per_byte(data: bytes) -> float:
    """Bits of `gzip -9` per byte of `data`, container included; it refers back 32 KiB at most."""
    return _ratio(len(gzip.compress(data, 9, mtime=0)), data)


def xz_bits_per_byte(data: bytes) -> float:
    """Bits of `xz -9e` per byte of `data`, container included; it refers back to all of it."""
    return _ratio(_xz(data), data)


def xz_conditional(train: bytes, data: bytes) -> float:
    """Bits per byte that `data` adds to the xz file of `train`: (xz(train + data) - xz(train)) / data.

    The container cancels out. Both are compressed with the settings of `xz -9e` and a window that holds all of
    train + data, so that nothing that was read is forgotten.
    """
    window = len(train) + len(data)
    return _ratio(_xz(train + data, window) - _xz(train, window), data)


def _xz(data: bytes, window: int = 0) -> int:
    """Size of the xz file; takes about ten times the window in memory, hence no larger a window than of use."""
    window = min(max(window, len(data), 4096), LARGEST_WINDOW)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}]
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=filters))


def _ratio(size: int, data: bytes) -> float:
    if not data:
        raise AUNetError("bits per byte: there is no byte to divide by")
    return 8 * size / len(data)
