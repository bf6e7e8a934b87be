"""Draw the picture of docs/elastic-execution.md from stored results of benchmarks/elastic_load.py.

In: benchmarks/results/elastic/cpu.json and memory.json. Out: docs/images/elastic-execution.png.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "images" / "elastic-execution.png"


def stored(load: str) -> dict[str, Any]:
    """The stored result of a load."""
    path = ROOT / "benchmarks" / "results" / "elastic" / f"{load}.json"
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def draw(upper: Axes, lower: Axes, result: dict[str, Any]) -> None:
    """The value that has a limit, and the size below it, over seconds."""
    cpu = result["load"] == "cpu"
    if cpu:
        points = [(one["at"], 1e3 * one["seconds"]) for one in result["tokens"]]
        limit, label = 1e3 * result["limit"], "ms a token"
    else:
        points = [(one["seconds"], one["resident_bytes"] / 1e9) for one in result["readings"]]
        limit, label = result["limit"] / 1e9, "GB resident"
    upper.plot(*zip(*points, strict=True), ".", markersize=3, color="tab:blue")
    on, off = result["on"], result["off"]
    upper.hlines(limit, 0 if cpu else on, points[-1][0] if cpu else off, color="tab:red", lw=1)
    what = f"{result['busy_programs']} busy programs" if cpu else f"limit {limit:g} GB"
    upper.set_title(f"{result['model']}: {what} from {on:.0f} to {off:.0f} s", fontsize=9)
    upper.set_ylabel(label)
    upper.set_ylim(bottom=0)
    names = list(dict.fromkeys(one["size"] for one in result["tokens"]))
    names.sort(key=_fullness)
    times = [one["at"] for one in result["tokens"]]
    lower.step(times, [names.index(one["size"]) for one in result["tokens"]], where="post")
    lower.set_yticks(range(len(names)), names, fontsize=7)
    lower.set_xlabel("seconds")
    for axes in (upper, lower):
        axes.axvspan(on, off, color="0.9")


def _fullness(name: str) -> tuple[int, str]:
    """e2b before its mixtures with e4b, by number, before e4b."""
    return (1, name) if ":" in name else (0 if name.startswith("e2b") else 2, name)


def main() -> None:
    """Draw both loads side by side."""
    figure, axes = pyplot.subplots(
        2, 2, figsize=(10, 4.6), sharex="col", height_ratios=(2, 1), layout="constrained"
    )
    for column, load in enumerate(("cpu", "memory")):
        draw(axes[0][column], axes[1][column], stored(load))
    figure.savefig(TARGET, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
