"""The bar picture of the README: how many times faster ours is, with the interquartile range, as
SVG text.

In: (label, ratio) pairs. Out: a file of a few kilobytes that needs no plotting library and differs
between runs only where the numbers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from .ratios import Spread

LEFT, WIDTH, BAR, GAP, TOP, BOTTOM = 300, 420, 16, 10, 34, 30
INK, GRID, FILL, RANGE = "#1f2933", "#d5dae0", "#3d7ea6", "#12384f"


def tick_step(largest: float) -> float:
    """A round step that gives at most eight grid lines."""
    return next(step for step in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 1e9) if largest / step <= 8)


def draw_ratios(bars: Sequence[tuple[str, Spread]], path: Path) -> None:
    """Write the picture. Raises ValueError without bars."""
    if not bars:
        raise ValueError("nothing to draw")
    largest = max(max(value.high, value.median) for _, value in bars) * 1.05
    scale = WIDTH / max(largest, 1.0)
    height = TOP + len(bars) * (BAR + GAP) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 70}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="18">times as fast as the other engine '
        "(median, interquartile range)</text>",
    ]
    step, tick = tick_step(largest), 0.0
    while tick <= largest:
        x = LEFT + tick * scale
        stroke = INK if tick == 1.0 else GRID
        parts.append(
            f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height - BOTTOM}" '
            f'stroke="{stroke}"/>'
        )
        parts.append(f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle">{tick:g}x</text>')
        tick += step
    for index, (label, value) in enumerate(bars):
        y = TOP + index * (BAR + GAP)
        middle = y + BAR / 2
        end = LEFT + value.median * scale
        low, high = LEFT + value.low * scale, LEFT + value.high * scale
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR}" fill="{FILL}"/>',
            f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" '
            f'stroke="{RANGE}" stroke-width="3"/>',
            f'<text x="{max(end, high) + 6:.1f}" y="{y + 12}">{value.median:.2f}x</text>',
        ]
    parts.append("</svg>")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts) + "\n")
