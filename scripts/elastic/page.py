"""Write the results of docs/elasticize.md from the elastic.json of a run, and draw their plot.

In: `scripts/elastic/gemma-3-270m.json`. Out: the part of docs/elasticize.md between its two marks,
and docs/images/elasticize.svg. `--check` only says whether the page is fresh.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("gemma-3-270m.json")
PAGE, PLOT = ROOT / "docs" / "elasticize.md", ROOT / "docs" / "images" / "elasticize.svg"
BEGIN, END = "<!-- results: written by scripts/elastic/page.py -->", "<!-- end of results -->"
TITLES = {
    "before": "raw prefix",
    "ordered": "ordered",
    "fitted": "and refitted",
    "recovered": "and distilled",
}


def cell(value: dict[str, float] | None, quantity: str) -> str:
    """Mean and interval; a dash where nothing was measured."""
    if value is None:
        return "-"
    if quantity == "perplexity":
        mean, low, high = (f"{value[k]:,.1f}" for k in ("value", "low", "high"))
    else:
        mean, low, high = (f"{100 * value[k]:.0f} %" for k in ("value", "low", "high"))
    return f"{mean} [{low.removesuffix(' %')}, {high.removesuffix(' %')}]"


def tables(report: dict[str, Any]) -> str:
    """A table a quantity: a row a width, a column a stage."""
    stages, widths = report["stages"], report["widths"]
    parts = []
    for quantity in next(iter(stages["before"].values())):
        shown = [s for s in stages if all(quantity in found for found in stages[s].values())]
        lines = [
            f"{quantity[0].upper()}{quantity[1:]} [95 % interval]:",
            "",
            f"| FFN units | {' | '.join(TITLES[stage] for stage in shown)} |",
            "|---|" + "---|" * len(shown),
        ]
        for name in sorted(widths, key=lambda name: -widths[name]):
            cells = [cell(stages[stage][name].get(quantity), quantity) for stage in shown]
            lines.append(f"| {widths[name]} ({name[1:]} %) | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def draw(report: dict[str, Any], target: Path) -> None:
    """Perplexity over width, a line a stage, with intervals."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "elasticize"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="FFN units of each layer", ylabel="perplexity, held-out text")
    widths = report["widths"]
    names = sorted(widths, key=lambda name: widths[name])
    for stage, found in report["stages"].items():
        values = [found[name]["perplexity"] for name in names]
        means = [value["value"] for value in values]
        errors = [
            [value["value"] - value["low"] for value in values],
            [value["high"] - value["value"] for value in values],
        ]
        units = [widths[name] for name in names]
        axes.errorbar(units, means, errors, marker="o", capsize=3, label=TITLES[stage])
    axes.set_yscale("log")
    axes.set_xticks([widths[name] for name in names])
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, format="svg", metadata={"Date": None})


def render(page: str, report: dict[str, Any]) -> str:
    """The page with fresh tables."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{tables(report)}\n\n{END}{after}"


def main() -> int:
    """Write or check the page; returns the exit code."""
    report = json.loads(RESULTS.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    fresh = render(page, report)
    if "--check" in sys.argv[1:]:
        if fresh != page:
            print("docs/elasticize.md is stale: run scripts/elastic/page.py", file=sys.stderr)
        return int(fresh != page)
    PAGE.write_text(fresh, encoding="utf-8")
    draw(report, PLOT)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
