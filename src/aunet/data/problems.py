"""What a reader had to skip: counted per kind, the first of each kind kept as `file:line: what`."""

from collections.abc import Callable, Mapping
from typing import Any, Self

from rich.console import Console

from aunet.errors import AUNetError

AGAIN = 10
"""A count is told again when it has grown by this factor."""


NOT_UTF8 = "text that is not UTF-8"
"""Of the kinds the one that is read all the same: a model of bytes learns any, if not what its writer meant."""


class Problems:
    """Counts per kind and the first example of each kind.

    >>> problems = Problems()
    >>> problems.add("malformed JSON", "a.jsonl:3", "not valid JSON")
    >>> problems.add("malformed JSON", "a.jsonl:9", "not valid JSON")
    >>> problems.counts, problems.lines()
    ({'malformed JSON': 2}, ['skipped 2 x malformed JSON, first a.jsonl:3: not valid JSON'])
    """

    def __init__(self, counts: Mapping[str, int] | None = None, first: Mapping[str, str] | None = None) -> None:
        self.counts: dict[str, int] = dict(counts or {})
        self.first: dict[str, str] = dict(first or {})
        self._known = set(self.first)

    def __bool__(self) -> bool:
        return bool(self.counts)

    def add(self, kind: str, where: str | Callable[[], str], what: str) -> None:
        """Count one; `where` (file, or file and line) may be a function, called only for the first of its kind."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind not in self._known:
            self._known.add(kind)
            self.first[kind] = f"{where if isinstance(where, str) else where()}: {what}"

    def merge(self, other: "Problems") -> None:
        """Add the counts of `other`; examples that are here already stay."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
        for kind, example in other.first.items():
            self._known.add(kind)
            self.first.setdefault(kind, example)

    def take(self) -> "Problems":
        """Hand over what was counted since the last call; kinds that were handed over get no second example."""
        taken = Problems(self.counts, self.first)
        self.counts, self.first = {}, {}
        return taken

    def lines(self) -> list[str]:
        """One line per kind, for a log."""
        return [self._line(kind) for kind in self.counts]

    def tell(self, console: Console) -> None:
        """Print these lines, whole."""
        for line in self.lines():
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    def news(self, told: dict[str, int], last: bool = False) -> list[str]:
        """Lines of the kinds that are new or ten times as many as was told before, at `last` of all that have grown.

        `told`: the counts that were told, which is brought up to date.
        """
        factor = 1 if last else AGAIN
        new = [kind for kind, count in self.counts.items() if count > factor * told.get(kind, 0)]
        told |= {kind: self.counts[kind] for kind in new}
        return [self._line(kind) for kind in new]

    def _line(self, kind: str) -> str:
        example = f", first {self.first[kind]}" if kind in self.first else ""
        what = f"{self.counts[kind]} x {kind}"
        return (f"read {what}, as it is" if kind == NOT_UTF8 else f"skipped {what}") + example

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"counts": dict(self.counts), "first": dict(self.first)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The inverse of `state_dict`."""
        return cls(state["counts"], state["first"])


def nothing_usable(path: str, problems: Problems) -> AUNetError:
    """The error for a source without a single document: one line with the path and the first problem."""
    first = next(iter(problems.first.values()), None)
    return AUNetError(f"{path}: no usable document; {f'first problem: {first}' if first else 'there is no text in it'}")
