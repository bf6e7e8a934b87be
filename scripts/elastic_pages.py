"""Put measured figures and pictures into docs/escalation.md and docs/speculation.md.

In: benchmarks/results/elastic/escalation.json and drift-*.json and benchmarks/curves/greedy-*.json,
from `python -m benchmarks.escalation`, `benchmarks.drift` and `benchmarks.greedy`. Out: the tables
between the marks of the pages, docs/images/escalation.png and drift.png; with `--check` nothing is
written, and the exit code says whether the tables are fresh.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scripts.evaluation_pages import DOCS, publish, replaced

from matryo.evaluate.intervals import Bootstrap, Interval

RESULTS = DOCS.parent / "benchmarks" / "results" / "elastic"
CURVES = RESULTS.parents[1] / "curves"
KINDS = ("doubt", "chance")
COLOURS = {"exact": "tab:green", "approximate": "tab:blue", "reanchor": "tab:orange"}


@dataclass(frozen=True, slots=True)
class Point:
    """A run. parameters: effective ones computed a token · ms: a token · loss: nats a token."""

    parameters: float
    ms: float
    loss: float
    losses: tuple[float, ...]
    share: float = 0.0


def stored(folder: Path, pattern: str) -> list[dict[str, Any]]:
    """Documents of a folder; those of random weights last."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(pattern))]
    return sorted(found, key=lambda one: "e4b" in one["settings"]["model"]["name"])


def fixed_point(parts: dict[str, Any], name: str) -> Point:
    """A fixed plan."""
    plans, run = parts["plans"], parts[f"fixed {name}"]
    loss = sum(run["losses"]) / run["tokens"]
    return Point(plans["effective"][name], plans["token_ms"][name], loss, tuple(run["losses"]), 0.0)


def point(parts: dict[str, Any], key: str) -> Point:
    """A run by doubt or by chance: what was computed twice counts twice."""
    run, mode = parts[key], key.split()[1]
    small, large = (fixed_point(parts, name) for name in names(parts, mode))
    tokens = run["tokens"]
    parameters = run["by_small"] * small.parameters
    parameters += (run["by_large"] + sum(run["recomputed"])) * large.parameters
    ms = (run["by_small"] * small.ms + run["by_large"] * large.ms) / tokens
    passes = parts["plans"]["pass_ms"]
    again = np.interp(run["recomputed"], [int(n) for n in passes], list(passes.values()))
    ms += float(again.sum()) / tokens
    if key.startswith("doubt"):
        ms += float(np.median([v["decide_ms"] for k, v in parts.items() if k.startswith("doubt")]))
    loss = sum(run["losses"]) / tokens
    share = "".join(run["taken"]).count("1") / tokens
    return Point(parameters / tokens, ms, loss, tuple(run["losses"]), share)


def names(parts: dict[str, Any], mode: str) -> tuple[str, str]:
    """The small and the large size of a mode."""
    return parts["plans"]["small"][mode], parts["plans"]["large"]


def runs(parts: dict[str, Any], mode: str) -> list[tuple[Point, Point]]:
    """All runs of a mode by doubt, each with the same changes elsewhere; by share."""
    numbers = [key.split()[2] for key in parts if key.startswith(f"doubt {mode} ")]
    found = [tuple(point(parts, f"{kind} {mode} {n}") for kind in KINDS) for n in numbers]
    return sorted(((ours, moved) for ours, moved in found), key=lambda both: both[0].share)


def difference(ours: Point, theirs: Point, tokens: int) -> Interval:
    """Nats a token that ours is above theirs, over resamples of the passages."""
    columns = np.array([ours.losses, theirs.losses]).T * len(ours.losses) / tokens
    rows = Bootstrap(len(ours.losses), 0)
    return rows.difference(columns[:, :1], columns[:, 1:], lambda sums: sums[:, 0] / rows.num_rows)


def quality_table(document: dict[str, Any]) -> str:
    """Fixed plans, then every mode at every threshold."""
    parts, settings = document["parts"], document["settings"]
    text, plans = settings["text"], parts["plans"]
    tokens = next(part["tokens"] for part in parts.values() if "tokens" in part)
    lines = [
        f"{settings['model']['name']}, weights {settings['model']['weights']}, "
        f"{text['passages'] // 2} held-out passages of {text['length']} tokens of {text['text']}, "
        "thresholds from as many others:",
        "",
        "![Loss against cost](images/escalation.png)",
        "",
        "| size | layers | parameters | ms a token | nats a token |",
        "|---|---|---:|---:|---:|",
    ]
    for name, layers in plans["description"].items():
        one = fixed_point(parts, name)
        lines.append(
            f"| {name} | {layers} | {one.parameters / 1e6:.2f} M | {one.ms:.3f} | {one.loss:.4f} |"
        )
    lines += [
        "",
        "| mode | by the large size | parameters | ms a token | nats a token | elsewhere "
        "| at random | doubt − elsewhere |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    verdicts = []
    for mode in COLOURS:
        small, large = (fixed_point(parts, name) for name in names(parts, mode))
        better = {"elsewhere": 0, "at random": 0}
        for ours, moved in runs(parts, mode):
            line = mixture(small, large, ours.parameters)
            found = difference(ours, moved, tokens)
            lines.append(
                f"| {mode} | {ours.share:.0%} | {ours.parameters / 1e6:.2f} M | {ours.ms:.3f} "
                f"| {ours.loss:.4f} | {moved.loss:.4f} | {line:.4f} | {found.value:+.4f} "
                f"[{found.low:+.4f}, {found.high:+.4f}] |"
            )
            better["elsewhere"] += (found.high or 0.0) < 0.0
            better["at random"] += ours.loss < line
        verdicts.append(
            f"- {mode}: of {len(runs(parts, mode))} thresholds doubt is surely better than the "
            f"same changes elsewhere at {better['elsewhere']}, and below the mixture at random "
            f"at {better['at random']}."
        )
    lines += ["", *verdicts]
    return "\n".join(lines) + "\n"


def mixture(small: Point, large: Point, parameters: float) -> float:
    """Nats a token if whole passages are read by one of two sizes, at random, at that cost; the
    large size alone where the cost is above its own.
    """
    share = (parameters - small.parameters) / (large.parameters - small.parameters)
    share = min(max(share, 0.0), 1.0)
    return share * large.loss + (1.0 - share) * small.loss


def drift_table(document: dict[str, Any]) -> str:
    """Every pair at every place: divergence and agreement, and the loss beside the plan alone."""
    settings = document["settings"]
    places = settings["places"]
    lines = [
        f"{settings['model']['name']}, weights {settings['model']['weights']}, passages of "
        f"{settings['text']['text']}: {settings['text']['passages']}; over "
        f"{settings['count']} tokens behind the switch KL in nats and how often the likeliest "
        "token is the same:",
        "",
        "| | " + " | ".join(f"at {place}" for place in places) + " | loss − alone, nats |",
        "|---|" + "---|" * len(places) + "---:|",
    ]
    for key, part in document["parts"].items():
        cells, losses = [], []
        for rows in part["places"].values():
            cell = f"{mean(rows, 'kl'):.2g}, {mean(rows, 'agree'):.1%}"
            if "again_ms" in rows[0]:  # the least of all passages: what others disturbed least
                again, token = (min(row[of] for row in rows) for of in ("again_ms", "token_ms"))
                cell += f", costs {again / token:.1f} tokens"
            cells.append(cell)
            losses += [row["loss"] - row["loss_alone"] for row in rows if "loss" in row]
        loss = f"{np.mean(losses):+.4f}" if losses else ""
        lines.append(f"| {key} | " + " | ".join(cells) + f" | {loss} |")
    return "\n".join(lines) + "\n"


def mean(rows: list[dict[str, float]], figure: str) -> float:
    """Over passages."""
    return float(np.mean([row[figure] for row in rows]))


def draw_quality(document: dict[str, Any], path: Path) -> None:
    """Loss against parameters and against time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = document["parts"]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    columns = figure.subplots(1, 2, sharey=True)
    for axes, cost, scale, label in zip(
        columns,
        ("parameters", "ms"),
        (1e-6, 1.0),
        ("effective parameters computed a token, millions", "ms a token"),
        strict=True,
    ):
        for mode, colour in COLOURS.items():
            for kind, style in enumerate(("o-", "x:")):
                found = [both[kind] for both in runs(parts, mode)]
                x = [scale * getattr(one, cost) for one in found]
                name = f"{mode}, {'the same elsewhere' if kind else 'by doubt'}"
                axes.plot(x, [one.loss for one in found], style, color=colour, ms=4, label=name)
        for name in parts["plans"]["description"]:
            one = fixed_point(parts, name)
            axes.plot([scale * getattr(one, cost)], [one.loss], "ks", ms=6)
            axes.annotate(
                name, (scale * getattr(one, cost), one.loss), xytext=(5, 4),
                textcoords="offset points", fontsize=8,
            )  # fmt: skip
        ends = [fixed_point(parts, name) for name in names(parts, "approximate")]
        axes.plot(
            [scale * getattr(one, cost) for one in ends], [one.loss for one in ends], "k--", lw=0.8,
            label="passages by one of the two, at random",
        )  # fmt: skip
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    columns[0].set_ylabel("nats a token (less is better)")
    figure.legend(
        *columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7
    )
    figure.savefig(path, dpi=110, metadata={"Software": None})


def draw_drift(documents: list[dict[str, Any]], path: Path) -> None:
    """Divergence and agreement against the place of the switch, one column a model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(documents), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(documents), squeeze=False)
    for column, document in zip(grid.T, documents, strict=True):
        for key, part in document["parts"].items():
            places = [int(place) for place in part["places"]]
            style = {"exact": "s-", "reanchor": "x--"}.get(key.split(":")[0], "o-")
            for axes, name in zip(column, ("kl", "agree"), strict=True):
                values = [mean(rows, name) for rows in part["places"].values()]
                axes.plot(places, values, style, ms=4, label=key)
        column[0].set_title(document["settings"]["model"]["name"], fontsize=10)
        column[0].set_ylabel("KL from the plan alone, nats")
        column[1].set_ylabel("same likeliest token")
        column[1].set_xlabel("tokens before the switch")
        column[0].legend(fontsize=7)
        for axes in column:
            axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def greedy_table(documents: list[dict[str, Any]]) -> str:
    """How many tokens were compared with those of plain decoding."""
    lines = [
        "| model | guesses by | tokens, all the same | guessed | right |",
        "|---|---|---:|---:|---:|",
    ]
    for document in documents:
        for key, part in document["parts"].items():
            if key != "plain":
                share = part["accepted"] / max(part["drafted"], 1)
                lines.append(
                    f"| {document['settings']['model']['name']} | {key} | {part['tokens']:,} "
                    f"| {part['drafted']:,} | {share:.0%} |"
                )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check; returns the exit code."""
    (quality,) = stored(RESULTS, "escalation.json")
    drifts, greedy = stored(RESULTS, "drift-*.json"), stored(CURVES, "greedy-*.json")
    escalation = [quality_table(quality), "![Drift](images/drift.png)\n", *map(drift_table, drifts)]
    tables = {"escalation": "\n".join(escalation), "speculation": greedy_table(greedy)}
    pages = {DOCS / f"{name}.md": table for name, table in tables.items()}
    texts = {page: replaced(page, table) for page, table in pages.items()}

    def pictures() -> None:
        draw_quality(quality, DOCS / "images" / "escalation.png")
        draw_drift(drifts, DOCS / "images" / "drift.png")

    return publish("scripts.elastic_pages", texts, pictures)


if __name__ == "__main__":
    sys.exit(main())
