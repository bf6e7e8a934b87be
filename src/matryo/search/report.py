"""The short report of a search: a table and a picture.

In: a file of plans with figures (what `Found.to_json` gives). Out: Markdown, and a picture of
quality against effective parameters and of what each layer is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matryo.checkpoint.atomic import replacing
from matryo.errors import InputError


def markdown(document: Mapping[str, Any], picture: str | None = None) -> str:
    """The report. picture: file name of the picture beside it."""
    task, search, model = document["task"], document["search"], document["model"]
    better = "more is better" if task["higher_is_better"] else "less is better"
    lines = [
        f"# Sizes of {model['name']} for {task['name']}",
        "",
        f"{search['plans_measured']} plans were measured on {task['rows_searched']} rows "
        f"(seed {search['seed']}); the figures here are from {task['rows_held_out']} other rows, "
        f"with 95 % intervals. Quality is {task['metric'].replace('_', ' ')}, {better}. "
        f"Weights {model['weights']}, K/V {search['kv']}, {search['device']['threads']} threads, "
        f"{search['device']['isa']}.",
        "",
        *([f"![Quality against effective parameters]({picture})", ""] if picture else []),
        "| size | parameters | quality | above the line | decode ms | prompt ms | resident MB |",
        "|---|---:|---|---|---:|---:|---:|",
    ]
    for name, plan in document["plans"].items():
        one = plan["measured"]
        mark = "**" if one["own"] else ""
        cells = [
            f"{mark}{name}{mark}",
            _count(one["effective_parameters"]),
            interval_text(one["quality"]),
            interval_text(one["above_line"], "+"),
            f"{one['decode_ms']:.2f}",
            f"{one['prefill_ms']:.3f}",
            f"{one['resident_bytes'] / 1e6:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "Bold: the model's own sizes. The line is straight, over effective parameters, from the "
        "smallest to the largest; an interval without 0 says that other rows would agree. "
        "Times are milliseconds a token.",
    ]
    return "\n".join(lines) + "\n"


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Draw the picture (`.png` or `.svg`). Raises InputError without matplotlib, OSError."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("a picture needs matplotlib: pip install 'matryo[search]'") from error
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_quality(left, document)
    _draw_layers(right, document)
    metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=110, metadata=metadata)


def _draw_quality(axes: Any, document: Mapping[str, Any]) -> None:
    plans = document["plans"]
    scale, unit = _scale(max(one["measured"]["effective_parameters"] for one in plans.values()))
    for own, marker, colour, label in (
        (False, "o", "tab:blue", "found, on held-out rows"),
        (True, "*", "tab:red", "the model's own sizes"),
    ):
        chosen = {name: p["measured"] for name, p in plans.items() if p["measured"]["own"] == own}
        if not chosen:
            continue
        x = [one["effective_parameters"] / scale for one in chosen.values()]
        y = [one["quality"]["value"] for one in chosen.values()]
        bars = [_bars(one["quality"]) for one in chosen.values()]
        axes.errorbar(
            x, y, yerr=list(zip(*bars, strict=True)), fmt=marker, color=colour, label=label,
            markersize=11 if own else 5, capsize=2, elinewidth=0.8,
        )  # fmt: skip
        if own:
            for name, place, height in zip(chosen, x, y, strict=True):
                axes.annotate(name, (place, height), textcoords="offset points", xytext=(7, 5))
    ends = [p["measured"] for p in plans.values() if p["measured"]["own"]]
    ends = [ends[0], ends[-1]]
    axes.plot(
        [one["effective_parameters"] / scale for one in ends],
        [one["quality"]["value"] for one in ends],
        "--",
        color="grey",
        linewidth=1,
        label="straight line",
    )
    task = document["task"]
    better = "more" if task["higher_is_better"] else "less"
    label = task["metric"].replace("_", " ") + (f", {task['unit']}" if task["unit"] else "")
    axes.set(
        xlabel=f"effective parameters, {unit}",
        ylabel=f"{label} ({better} is better)",
        title=f"{document['model']['name']}: {task['name']}, {task['rows_held_out']} rows held out",
    )
    axes.margins(x=0.1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_layers(axes: Any, document: Mapping[str, Any]) -> None:
    changes = document["sensitivity"]
    narrowed = [one for one in changes if one["width"]]
    skipped = [one for one in changes if not one["width"]]
    for chosen, shift, label in (
        (narrowed, -0.2, "at its smallest width"),
        (skipped, 0.2, "skipped"),
    ):
        axes.bar(
            [one["layer"] + shift for one in chosen],
            [one["worse"]["value"] for one in chosen],
            width=0.4,
            yerr=list(zip(*(_bars(one["worse"]) for one in chosen), strict=True)) or None,
            error_kw={"elinewidth": 0.8},
            label=label,
        )
    axes.set(xlabel="layer, alone", ylabel="quality lost", title="What each layer is worth")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.grid(alpha=0.3, axis="y")
    if changes:
        axes.legend(fontsize=8)


def _bars(interval: Mapping[str, float | None]) -> tuple[float, float]:
    """Lengths of an error bar down and up; none for an interval that is not known."""
    value, low, high = interval["value"], interval["low"], interval["high"]
    if value is None or low is None or high is None:
        return 0.0, 0.0
    return max(0.0, value - low), max(0.0, high - value)


def _scale(largest: float) -> tuple[float, str]:
    return (1e9, "billions") if largest >= 1e9 else (1e6, "millions")


def _count(effective: int) -> str:
    scale, unit = _scale(effective)
    return f"{effective / scale:.2f} {unit[0].upper()}"


def interval_text(figure: Mapping[str, float | None], sign: str = "") -> str:
    """`1.234 [1.200, 1.270]`."""
    # Rounded first, and 0.0 added: a zero is never "-0.000".
    shown = [
        None if one is None else f"{round(one, 3) + 0.0:{sign}.3f}"
        for one in (figure["value"], figure["low"], figure["high"])
    ]
    if shown[0] is None:
        return "-"
    return shown[0] if None in shown else f"{shown[0]} [{shown[1]}, {shown[2]}]"
