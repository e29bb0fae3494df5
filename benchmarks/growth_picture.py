"""How costs grow, as a picture and a table: docs/growth.svg and its part of docs/scaling.md."""

from __future__ import annotations

import html
import math
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

WIDTH, PANEL, SIDE, GAP, TOP = 1020, 330, 250, 52, 44  # pixels; a panel is a square of SIDE
LINE = 16  # pixels of a line of text
COLOURS = ("#1f5c99", "#c2571a", "#2f7d4f", "#8a3f8f", "#7a6a1a")
Point = Dict[str, Any]  # of, size, what, cost, unit: see side_by_side.point


class Curve(NamedTuple):
    """What one thing costs at several sizes, by size."""

    what: str
    sizes: List[int]
    costs: List[float]
    unit: str

    @property
    def growth(self) -> List[float]:
        """The costs as multiples of the first."""
        return [cost / self.costs[0] for cost in self.costs]


def curves(points: Sequence[Point]) -> Dict[str, List[Curve]]:
    """The curves of each thing that there is more and more of, in the order of the points."""
    found: Dict[str, Dict[str, Curve]] = {}
    for point in sorted(points, key=lambda point: int(point["size"])):
        of = found.setdefault(point["of"], {})
        curve = of.setdefault(point["what"], Curve(point["what"], [], [], point["unit"]))
        curve.sizes.append(point["size"])
        curve.costs.append(point["cost"])
    return {of: list(named.values()) for of, named in found.items()}


def table(points: Sequence[Point]) -> str:
    """Markdown: a line for each curve."""
    lines = ["| of | cost | sizes | at each | from the first to the last |", "|---|---|---|---|---|"]
    for of, found in curves(points).items():
        for curve in found:
            sizes = " · ".join(f"{size:,}" for size in curve.sizes)
            costs = " · ".join(_with_unit(cost, curve.unit) for cost in curve.costs)
            more = _short(curve.sizes[-1] / curve.sizes[0])
            times = f"{_short(curve.growth[-1])} times for {more} times as many"
            lines.append(f"| {of} | {curve.what} | {sizes} | {costs} | {times} |")
    return "\n".join(lines) + "\n"


def picture(points: Sequence[Point]) -> str:
    """An SVG with a panel for each thing that there is more and more of; both axes logarithmic."""
    panels = curves(points)
    height = TOP + SIDE + 40 + LINE * (1 + max(len(found) for found in panels.values()))
    parts = [f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>']
    for number, (of, found) in enumerate(panels.items()):
        parts.append(f'<g transform="translate({number * PANEL + GAP} {TOP})">')
        parts += _panel(of, found)
        parts.append("</g>")
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="11">\n<title>How costs grow; dashed: as the size</title>\n{body}\n</svg>\n'
    )


class _Axes(NamedTuple):
    """From sizes and costs to pixels of a panel, both logarithmic."""

    sizes: Tuple[float, float]
    costs: Tuple[float, float]

    def place(self, size: float, cost: float) -> Tuple[float, float]:
        x, y = _share(size, self.sizes), _share(cost, self.costs)
        return SIDE * x, SIDE * (1 - y)


def _share(value: float, ends: Tuple[float, float]) -> float:
    return math.log(value / ends[0]) / math.log(ends[1] / ends[0])


def _panel(of: str, found: Sequence[Curve]) -> List[str]:
    sizes = sorted({size for curve in found for size in curve.sizes})
    costs = [cost for curve in found for cost in curve.growth]
    whole = sizes[-1] / sizes[0]
    axes = _Axes((sizes[0], sizes[-1]), (min(costs) / 1.2, 1.2 * max(whole, *costs)))
    parts = [
        f'<text y="-26" font-weight="bold">{html.escape(of)}</text>',
        '<text y="-10">times the cost of the fewest; dashed: their number</text>',
        *_frame(axes, sizes),
        _line([axes.place(sizes[0], 1), axes.place(sizes[-1], whole)], "#888", 'stroke-dasharray="4 4"'),
    ]
    for number, curve in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        places = [axes.place(size, cost) for size, cost in zip(curve.sizes, curve.growth)]
        parts.append(_line(places, colour, 'stroke-width="2"'))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        label = html.escape(f"{curve.what}: {_short(curve.growth[-1])} times")
        parts.append(f'<text y="{SIDE + 44 + LINE * number}" fill="{colour}">{label}</text>')
    return parts


def _frame(axes: _Axes, sizes: Sequence[int]) -> List[str]:
    parts = [f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="#444"/>']
    for size in sizes:
        x, _ = axes.place(size, 1)
        parts.append(f'<text x="{x:.1f}" y="{SIDE + 16}" text-anchor="middle">{size:,}</text>')
    for cost in _marks(*axes.costs):
        _, y = axes.place(axes.sizes[0], cost)
        parts.append(_line([(0, y), (SIDE, y)], "#ddd"))
        parts.append(f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{cost:g}</text>')
    return parts


def _marks(low: float, high: float) -> List[float]:
    """Powers of ten from `low` to `high`; where these are few, twice and five times them as well."""
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    factors = (1, 2, 5) if high < 30 * low else (1,)
    return [power * factor for power in powers for factor in factors if low <= power * factor <= high]


def _line(places: Sequence[Tuple[float, float]], colour: str, more: str = "") -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<path d="M{path}" fill="none" stroke="{colour}" {more}/>'


def _with_unit(cost: float, unit: str) -> str:
    """With three digits; seconds as milliseconds or microseconds where they are few."""
    for prefix, factor in (("", 1.0), ("m", 1e3), ("µ", 1e6)):
        if unit != "s" or cost * factor >= 1 or prefix == "µ":
            break
    return f"{_short(cost * factor)} {prefix}{unit}"


def _short(number: float) -> str:
    """Three digits, without an exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
