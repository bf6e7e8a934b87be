"""Put measured figures and pictures into docs/evaluation.md and docs/search.md.

In: docs/results/evaluation.json (from `matryo eval --json`) and docs/results/search.json (from
`matryo search -o`). Out: the tables between the marks of the two pages, and
docs/images/evaluation.png and search.png; with `--check` nothing is written, and the exit code says
whether the tables are fresh.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matryo.search.report import draw, interval_text, markdown

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"


def evaluation_table(document: dict[str, Any]) -> str:
    """One row a size, one column a metric of each part."""
    columns = [
        (part, name, metric)
        for part in document["parts"]
        for name, metric in part["metrics"].items()
    ]
    model, settings = document["model"], document["settings"]
    lines = [
        f"{model['name']}, weights {model['weights']}, K/V {settings['kv']}, seed "
        f"{settings['seed']}, {document['task']['rows']} rows of {document['task']['name']}:",
        "",
        "![Quality of every size](images/evaluation.png)",
        "",
        "| size | parameters | "
        + " | ".join(f"{name.replace('_', ' ')} ({part['name']})" for part, name, _ in columns)
        + " |",
        "|---|---:|" + "---|" * len(columns),
    ]
    for size, plan in document["sizes"].items():
        cells = [interval_text(metric["sizes"][size]) for _, _, metric in columns]
        lines.append(f"| {size} | {plan['effective'] / 1e6:.2f} M | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def search_table(document: dict[str, Any]) -> str:
    """The report without its title."""
    text = markdown(document, "images/search.png")
    return text.partition("\n\n")[2]


def draw_evaluation(document: dict[str, Any], path: Path) -> None:
    """The metric that counts of every part, against parameters."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = document["parts"]
    figure = Figure(figsize=(4.6 * len(parts), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, part in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        name, metric = next(iter(part["metrics"].items()))
        for size, plan in document["sizes"].items():
            found = metric["sizes"][size]
            x, value = plan["effective"] / 1e6, found["value"]
            bars = [[value - found["low"]], [found["high"] - value]]
            axes.errorbar([x], [value], yerr=bars, fmt="o", color="tab:blue", capsize=3)
            axes.annotate(size, (x, value), textcoords="offset points", xytext=(6, 4))
        better = "more" if metric["higher_is_better"] else "less"
        axes.set(
            title=f"{part['name']}, {part['items']} items",
            xlabel="effective parameters, millions",
            ylabel=f"{name.replace('_', ' ')} ({better} is better)",
        )
        axes.margins(x=0.15)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def replaced(page: Path, table: str) -> str:
    """The page with another table between its marks."""
    before, mark, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise SystemExit(f"error: {page} has no {BEGIN.strip()} … {END.strip()}")
    return before + BEGIN + table + END + after


def publish(script: str, texts: Mapping[Path, str], draw: Callable[[], None]) -> int:
    """Writes the pages and draws their pictures; with `--check` it says which pages are stale
    instead, and that `script` makes them anew. Returns the exit code.
    """
    if "--check" not in sys.argv[1:]:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
        draw()
        return 0
    stale = [p.name for p, t in texts.items() if not p.exists() or p.read_text("utf-8") != t]
    if stale:
        print(f"error: run python -m {script}: {', '.join(stale)}", file=sys.stderr)
    return int(bool(stale))


def main() -> int:
    """Write or check; returns the exit code."""
    evaluation, search = (
        json.loads((DOCS / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("evaluation", "search")
    )
    tables = {"evaluation": evaluation_table(evaluation), "search": search_table(search)}
    pages = {DOCS / f"{name}.md": table for name, table in tables.items()}

    def pictures() -> None:
        draw_evaluation(evaluation, DOCS / "images" / "evaluation.png")
        draw(search, DOCS / "images" / "search.png")

    texts = {page: replaced(page, table) for page, table in pages.items()}
    return publish("scripts.evaluation_pages", texts, pictures)


if __name__ == "__main__":
    sys.exit(main())
