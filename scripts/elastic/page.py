"""Put what each width of Gemma 3 270M is worth into docs/elasticize.md, and draw it.

In: docs/results/elasticize.json, the `elastic.json` that `matryo elasticize` wrote. Out: the tables
between the marks of docs/elasticize.md, docs/images/elasticize.png. With `--check` nothing is
written, and the exit code says whether the page is fresh.

    python -m scripts.elastic.page
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.evaluation_pages import DOCS, publish, replaced

Json = dict[str, Any]
STAGES = {
    "before": "raw prefix", "ordered": "ordered", "fitted": "and refitted",
    "recovered": "and distilled",
}  # fmt: skip
COLOURS = {"before": "tab:gray", "ordered": "tab:orange", "fitted": "tab:green",
           "recovered": "tab:blue"}  # fmt: skip
QUANTITIES = {
    "perplexity": "perplexity of held-out text",
    "common-knowledge": "common knowledge, % right",
    "arc-easy": "ARC-easy, % right",
    "mmlu": "MMLU, % right",
}
# Right by a random choice: of the common knowledge 90 questions have five answers, 24 have four.
CHANCE = {"common-knowledge": 21.1, "arc-easy": 25.0, "mmlu": 25.0}


def by_width(report: Json) -> list[str]:
    """The names of the widths, the narrowest first."""
    return sorted(report["widths"], key=lambda name: report["widths"][name])


def stages(report: Json, quantity: str) -> list[tuple[str, str]]:
    """Those at which it was measured, and what they are called."""
    every = report["stages"]
    return [
        (stage, name)
        for stage, name in STAGES.items()
        if all(quantity in values for values in every[stage].values())
    ]


def shown(found: Json, quantity: str) -> str:
    """A figure with its interval."""
    scale = 100 if quantity in CHANCE else 1
    value, low, high = (scale * found[key] for key in ("value", "low", "high"))
    form = ".0f" if quantity in CHANCE or value >= 100 else ".1f"
    if value >= 1e5:
        form = ".1e"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def tables(report: Json) -> Iterator[str]:
    """One a quantity: a row a stage, a column a width."""
    widths = by_width(report)
    for quantity, title in QUANTITIES.items():
        yield f"| {title} | " + " | ".join(f"{name.removeprefix('w')} %" for name in widths) + " |"
        yield "|---|" + "---|" * len(widths)
        for stage, name in stages(report, quantity):
            found = report["stages"][stage]
            cells = (shown(found[width][quantity], quantity) for width in widths)
            yield f"| {name} | " + " | ".join(cells) + " |"
        yield ""


def draw(report: Json, path: Path) -> None:
    """Perplexity and accuracy over the share of FFN units, a line a stage."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    widths = by_width(report)
    shares = [int(name.removeprefix("w")) for name in widths]
    figure = Figure(figsize=(15, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panes = figure.subplots(1, len(QUANTITIES))
    for pane, (quantity, title) in zip(panes, QUANTITIES.items(), strict=True):
        scale = 100 if quantity in CHANCE else 1
        for stage, name in stages(report, quantity):
            found = [report["stages"][stage][width][quantity] for width in widths]
            values = [scale * one["value"] for one in found]
            ends = [
                [scale * abs(one["value"] - one[end]) for one in found] for end in ("low", "high")
            ]
            pane.errorbar(
                shares, values, ends, marker="o", capsize=3, label=name, color=COLOURS[stage]
            )
        if quantity in CHANCE:
            pane.axhline(CHANCE[quantity], color="gray", linestyle=":")
        else:
            pane.set_yscale("log")
        pane.set_title(title, fontsize=10)
        pane.set_xticks(shares, [f"{share} %" for share in shares])
        pane.grid(alpha=0.3)
    panes[0].legend(fontsize=8)
    figure.supxlabel("share of the FFN units; dotted: a random choice", fontsize=10)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main() -> int:
    """Write or check; returns the exit code."""
    report = json.loads((DOCS / "results" / "elasticize.json").read_text(encoding="utf-8"))
    page = DOCS / "elasticize.md"
    texts = {page: replaced(page, "\n".join(tables(report)).strip() + "\n")}
    picture = DOCS / "images" / "elasticize.png"
    return publish("scripts.elastic.page", texts, lambda: draw(report, picture))


if __name__ == "__main__":
    sys.exit(main())
