"""The loss curve as inline SVG: bits per byte against bytes read, with lines for systems to compare with.

Bytes read stand on a logarithmic axis: the loss falls fast at first and slowly later, and both are to be seen.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from aunet.magnitudes import short

Point = tuple[float, float]
"""Bytes read, bits per byte."""

WIDTH, HEIGHT = 680, 380
LEFT, RIGHT, TOP, BOTTOM = 50, 160, 16, 46
MOST_POINTS = 600
"""More than a screen can show are averaged."""
LARGEST = 1e100
"""What is not below this, infinities and what is not a number included, is not shown."""
LABEL_GAP = 15
"""Pixels between two labels at the right margin."""


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Pixel of a value."""
        low, high = self._scale(self.low), self._scale(self.high)
        return self.start + (self._scale(value) - low) / (high - low) * (self.end - self.start)

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self) -> list[float]:
        """A few round values inside the axis."""
        return decades(self.low, self.high) if self.log else rounds(self.low, self.high)


def rounds(low: float, high: float, most: int = 7) -> list[float]:
    """At most `most` + 1 multiples of 1, 2 or 5 times a power of ten in [low, high].

    >>> rounds(1.4, 8.1)
    [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    """
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first = math.ceil(low / step * (1 - 1e-9))
    return [k * step for k in range(first, first + most + 2) if k * step <= high * (1 + 1e-9)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten in [low, high], or also their multiples by 2 and 5 where there are few; [low, high] if none.

    >>> decades(2e4, 3e6), decades(2e4, 1e5)
    ([100000.0, 1000000.0], [20000.0, 50000.0, 100000.0])
    """
    span = math.log10(high / low)
    factors: tuple[int, ...] = (1,) if span >= 1.8 else (1, 2, 5)
    stride = max(1, math.ceil(span / 8))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers if power % stride == 0 for factor in factors]
    return [tick for tick in ticks if low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9)] or [low, high]


def curve_svg(train: Sequence[Point], valid: Sequence[Point], references: Sequence[tuple[str, float]] = ()) -> str:
    """The figure; points that are not finite (or as good as that), or before the first byte, are left out.

    `references`: names and bits per byte of horizontal lines.
    """
    train, valid = _thin(_usable(train)), _usable(valid)
    lines = [(name, value) for name, value in references if abs(value) < LARGEST]
    points = [*train, *valid]
    if not points:
        return '<p class="empty">No step was recorded.</p>'
    x, y = _axes(points, [value for _, value in lines])
    parts = [_grid(x, y), _references(lines, y)]
    if train:
        parts.append(f'<path class="train" d="{_path(train, x, y)}"/>')
        if len(train) == 1:
            parts.append(_dot("train", train[0], x, y))
    if valid:
        parts.append(f'<path class="valid" d="{_path(valid, x, y)}"/>')
        parts.extend(_dot("valid", point, x, y) for point in valid)
    parts.append(_key(bool(train), bool(valid)))
    last = (valid or train)[-1]
    label = f"Bits per byte against bytes read; {short(last[1])} after {short(last[0])} bytes."
    return (
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _usable(points: Iterable[Point]) -> list[Point]:
    return sorted((x, y) for x, y in points if abs(x) < LARGEST and abs(y) < LARGEST and x >= 1)


def _thin(points: list[Point]) -> list[Point]:
    """Averages of neighbours, by equal ratios of bytes, where there are more points than can be shown."""
    if len(points) <= MOST_POINTS:
        return points
    low, high = math.log(points[0][0]), math.log(points[-1][0])
    cells: dict[int, list[Point]] = {}
    for point in points:
        place = (math.log(point[0]) - low) / (high - low or 1.0)
        cells.setdefault(min(int(place * MOST_POINTS), MOST_POINTS - 1), []).append(point)
    return [(_mean(x for x, _ in cell), _mean(y for _, y in cell)) for cell in cells.values()]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(value / len(found) for value in found)


def _axes(points: list[Point], levels: list[float]) -> tuple[Axis, Axis]:
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    if right < left * 1.01:  # one point, or several at one place: it stands in the middle
        left, right = left / 2, right * 2
    values = [*(y for _, y in points), *levels]
    low, high = min(values), max(values)
    flat = high - low < abs(high) * 1e-3 + 1e-9
    room = max(abs(low) * 0.1, 0.5) if flat else (high - low) * 0.06
    log = low > 1e-6 and high > 50 * low
    bottom, top = (low / 1.2, high * 1.2) if log else (low - room, high + room)
    return Axis(left, right, LEFT, WIDTH - RIGHT, log=True), Axis(bottom, top, HEIGHT - BOTTOM, TOP, log=log)


def _grid(x: Axis, y: Axis) -> str:
    parts = []
    for tick in y.ticks():
        at = f"{y.at(tick):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at}" dy=".35em" text-anchor="end">{short(tick)}</text>')
    bottom = HEIGHT - BOTTOM
    for tick in x.ticks():
        at = f"{x.at(tick):.1f}"
        parts.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text class="tick" x="{at}" y="{bottom + 19}" text-anchor="middle">{short(tick)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="name" x="{middle:.1f}" y="{HEIGHT - 6}" text-anchor="middle">bytes read</text>')
    centre = (TOP + bottom) / 2
    turn = f'transform="translate(12 {centre:.1f}) rotate(-90)"'
    parts.append(f'<text class="name" {turn} text-anchor="middle">bits per byte</text>')
    return "".join(parts)


def _references(lines: Sequence[tuple[str, float]], y: Axis) -> str:
    """Dashed lines, their labels in the right margin, moved apart where they are close."""
    parts, free = [], -math.inf
    ordered = sorted(lines, key=lambda line: -line[1])
    places = []
    for name, value in ordered:
        free = max(y.at(value), free + LABEL_GAP)
        places.append((name, value, free))
    overflow = max([free - (HEIGHT - BOTTOM - 2), 0.0]) if places else 0.0
    end = WIDTH - RIGHT
    for name, value, label in places:
        at, label = y.at(value), label - overflow
        parts.append(f'<path class="reference" d="M{LEFT} {at:.1f}H{end}L{end + 10} {label:.1f}"/>')
        parts.append(f'<text class="label" x="{end + 14}" y="{label:.1f}" dy=".35em">{escape(name)}</text>')
    return "".join(parts)


def _path(points: Iterable[Point], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{x.at(a):.1f} {y.at(b):.1f}" for a, b in points)


def _dot(kind: str, point: Point, x: Axis, y: Axis) -> str:
    title = f"{short(point[1])} bits per byte after {short(point[0])} bytes"
    place = f'cx="{x.at(point[0]):.1f}" cy="{y.at(point[1]):.1f}" r="3.5"'
    return f'<circle class="{kind}" {place}><title>{title}</title></circle>'


def _key(train: bool, valid: bool) -> str:
    """What the lines are, at the top right where a falling curve leaves room."""
    parts, row = [], TOP + 12
    for kind, name, there in (("train", "training rows", train), ("valid", "held-out documents", valid)):
        if there:
            left = WIDTH - RIGHT - 150
            parts.append(f'<path class="{kind}" d="M{left} {row}h22"/>')
            parts.append(f'<circle class="{kind}" cx="{left + 11}" cy="{row}" r="3.5"/>' if kind == "valid" else "")
            parts.append(f'<text class="label" x="{left + 29}" y="{row}" dy=".35em">{name}</text>')
            row += LABEL_GAP + 3
    return "".join(parts)
