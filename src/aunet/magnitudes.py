"""Large numbers for people: three digits and a suffix."""

from collections.abc import Sequence


def short(number: float) -> str:
    """A count.

    >>> [short(number) for number in (0, 2.5, 999, 999_999, 1_818_166_506, 1e12, 4e20)]
    ['0', '2.5', '999', '1M', '1.82G', '1T', '4e+20']
    """
    return _scaled(number, ("", "k", "M", "G", "T", "P"))


def size(number: float) -> str:
    """Bytes.

    >>> size(202_375_168), size(999.6)
    ('202 MB', '1 kB')
    """
    return _scaled(number, (" B", " kB", " MB", " GB", " TB", " PB"))


def _scaled(number: float, suffixes: Sequence[str]) -> str:
    """With the first suffix that leaves less than 1000, once it is rounded; with none what is beyond the last."""
    for power, suffix in enumerate(suffixes):
        digits = f"{number / 1000**power:.3g}"
        if abs(float(digits)) < 1000:
            return f"{digits}{suffix}"
    return f"{number:.3g}{suffixes[0]}"
