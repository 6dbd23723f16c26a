"""Large numbers for people: three digits and a suffix."""

from collections.abc import Sequence


def short(number: float) -> str:
    """A count.

    >>> short(1_818_166_506), short(999), short(0)
    ('1.82G', '999', '0')
    """
    return _scaled(number, ("", "k", "M", "G", "T", "P"))


def size(number: float) -> str:
    """Bytes.

    >>> size(202_375_168), size(999.6)
    ('202 MB', '1 kB')
    """
    return _scaled(number, (" B", " kB", " MB", " GB", " TB", " PB"))


def _scaled(number: float, suffixes: Sequence[str]) -> str:
    for suffix in suffixes[:-1]:
        if float(f"{number:.3g}") < 1000:
            return f"{number:.3g}{suffix}"
        number /= 1000
    return f"{number:.3g}{suffixes[-1]}"
