"""The README's picture: decode speed and memory of the sizes in one file.

In: the details of a `sizes` case ("NAME: tokens/s", "NAME: resident GB", ...). Out: a PNG.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SPEED, MEMORY = "#3d7ea6", "#b5651d"
Figures = dict[str, dict[str, float]]


def by_size(details: Mapping[str, float | str]) -> Figures:
    """Size -> figure -> value, in the order in which they were measured."""
    found: Figures = {}
    for key, value in details.items():
        name, _, figure = key.partition(": ")
        if figure:
            found.setdefault(name, {})[figure] = float(value)
    return found


def label(name: str) -> str:
    """`30 x 12288` in two lines, `e2b` in capitals."""
    return name.upper() if name.startswith("e") else name.replace(" x ", " layers\nx ")


def draw_sizes(figures: Figures, path: Path) -> None:
    """Bars for the speed, a line for the memory. Raises ValueError without sizes."""
    if not figures:
        raise ValueError("nothing to draw")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, speed = pyplot.subplots(figsize=(7.5, 3.6), dpi=130)
    names = [label(name) for name in figures]
    places = range(len(names))
    rates = [one["tokens/s"] for one in figures.values()]
    resident = [one["resident GB"] for one in figures.values()]
    bars = speed.bar(places, rates, 0.55, color=SPEED)
    speed.bar_label(bars, [f"{value:.1f}" for value in rates], label_type="center", color="white")
    speed.set_ylabel("tokens/s", color=SPEED)
    speed.set_xticks(list(places), names, fontsize=8)
    memory = speed.twinx()
    memory.plot(places, resident, "o-", color=MEMORY)
    memory.set_ylim(0, 1.15 * max(resident))
    memory.set_ylabel("resident GB so far", color=MEMORY)
    speed.set_ylim(0, 1.3 * max(rates))
    speed.set_title("One file, one process: decode speed and memory by size", fontsize=10)
    for axes in (speed, memory):
        axes.spines["top"].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
