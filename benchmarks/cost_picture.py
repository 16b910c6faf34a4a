"""Draws measured costs with their straight lines: an SVG that can be read on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.straight_line import Line

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT, LEFT, TOP, GAP = 300, 190, 70, 50, 90
# A row for what grows, a panel for each that is measured.
ROW = 2
_COLOURS = {"xgboost": "#218bff", "lightgbm": "#2da44e"}
_UNITS = {"cpu_seconds": ("CPU seconds", 1.0), "peak_bytes": ("peak MiB", 2.0**20)}
_STYLE = """
  .page { fill: #ffffff; } text { font: 13px sans-serif; fill: #1f2328; } .axis { stroke: #59636e; fill: none; }
  @media (prefers-color-scheme: dark) { .page { fill: #0d1117; } text { fill: #f0f6fc; } .axis { stroke: #9198a1; } }
"""


def draw(series: Mapping[tuple[str, str, str], Points]) -> str:
    """Return the picture: a panel for each of what grows and what is measured, the trainers in colours of their own.

    Args:
        series: (trainer, `rows` or `columns`, measure) -> (size, cost), the smallest first.
    """
    panels: dict[tuple[str, str], dict[str, Points]] = {}
    for (trainer, kind, measure), points in series.items():
        panels.setdefault((kind, measure), {})[trainer] = points
    parts = [_panel(i, kind, measure, lines) for i, ((kind, measure), lines) in enumerate(panels.items())]
    width, height = ROW * (WIDTH + GAP) + LEFT, -(-len(parts) // ROW) * (HEIGHT + GAP) + TOP
    legend = "".join(
        f'<text x="{LEFT + 110 * i}" y="22" style="fill: {colour}">{trainer}</text>'
        for i, (trainer, colour) in enumerate(_COLOURS.items())
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    title = "<title>Cost of training by rows and by columns</title>"
    page = f'<rect class="page" width="{width}" height="{height}"/>'
    return "\n".join([head, title, f"<style>{_STYLE}</style>", page, legend, *parts, "</svg>"]) + "\n"


def _panel(number: int, kind: str, measure: str, lines: Mapping[str, Points]) -> str:
    unit, divisor = _UNITS[measure]
    x0, y0 = LEFT + number % ROW * (WIDTH + GAP), TOP + number // ROW * (HEIGHT + GAP)
    most_x = max(x for points in lines.values() for x, _ in points)
    most_y = max(y for points in lines.values() for _, y in points) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return round(x0 + WIDTH * x / most_x, 1), round(y0 + HEIGHT * (1 - y / most_y), 1)

    parts = [
        f'<path class="axis" d="M{x0} {y0} V{y0 + HEIGHT} H{x0 + WIDTH}"/>',
        f'<text x="{x0}" y="{y0 - 8}">{escape(unit)} by {kind}</text>',
        f'<text x="{x0 - 8}" y="{y0 + 5}" text-anchor="end">{most_y / divisor:,.4g}</text>',
        f'<text x="{x0 + WIDTH}" y="{y0 + HEIGHT + 20}" text-anchor="end">{most_x:,.0f}</text>',
        f'<text x="{x0}" y="{y0 + HEIGHT + 20}" text-anchor="middle">0</text>',
    ]
    for trainer, points in lines.items():
        colour = _COLOURS[trainer]
        if len(points) > 1:
            line = Line.through(points)
            (ax, ay), (bx, by) = at(0, line.fixed), at(most_x, line.fixed + line.slope * most_x)
            parts.append(f'<path d="M{ax} {ay} L{bx} {by}" stroke="{colour}" fill="none"/>')
        for x, y in points:
            cx, cy = at(x, y)
            parts.append(f'<circle cx="{cx}" cy="{cy}" r="4" fill="{colour}"/>')
    return "\n".join(parts)
