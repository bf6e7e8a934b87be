"""What came of an evaluation, and the document that is kept of it.

In: items and results of each size. Out: figures with confidence intervals, differences between
sizes over the same rows, and JSON with everything that is needed to compute them again: seeds,
settings, prompts, answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matryo.checkpoint.atomic import replace_text
from matryo.config import TextConfig
from matryo.evaluate.evaluator import Settings
from matryo.evaluate.intervals import Bootstrap, Interval
from matryo.evaluate.items import Item, ScoreItem
from matryo.evaluate.metrics import Metric, metrics_for
from matryo.evaluate.rows import row_to_json
from matryo.evaluate.task import Task
from matryo.model.parameters import count_parameters
from matryo.plan import Plan

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """A plan and its parameters without the two tables."""

    plan: Plan
    effective_parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """One part of a task.

    figures: metric -> size -> interval · differences: metric -> size -> interval of that size minus
    the last one · chance: accuracy of guessing in percent, for questions
    """

    name: str
    items: tuple[Item, ...]
    results: Mapping[str, Sequence[Result]]
    metrics: tuple[Metric, ...]
    figures: Mapping[str, Mapping[str, Interval]]
    differences: Mapping[str, Mapping[str, Interval]]
    chance: float | None

    @classmethod
    def of(
        cls,
        items: Sequence[Item],
        results: Mapping[str, Sequence[Result]],
        *,
        seed: int,
        resamples: int,
    ) -> PartReport:
        """items of one part; results: size -> one an item. Raises InputError if kinds are mixed."""
        metrics = metrics_for(items)
        bootstrap = Bootstrap(len(items), seed, resamples)
        figures, differences = {}, {}
        for metric in metrics:
            columns = {size: metric.columns(items, found) for size, found in results.items()}
            figures[metric.name] = {
                size: bootstrap.interval(one, metric.value) for size, one in columns.items()
            }
            *others, last = columns
            differences[metric.name] = {
                size: bootstrap.difference(columns[size], columns[last], metric.value)
                for size in others
            }
        return cls(
            name=items[0].row.part,
            items=tuple(items),
            results=results,
            metrics=tuple(metrics),
            figures=figures,
            differences=differences,
            chance=_chance(items),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "items": len(self.items),
            "chance": self.chance,
            "metrics": {
                metric.name: {
                    "higher_is_better": metric.higher_is_better,
                    "unit": metric.unit,
                    "sizes": _intervals(self.figures[metric.name]),
                    "differences": _intervals(self.differences[metric.name]),
                }
                for metric in self.metrics
            },
        }

    def rows_to_json(self) -> list[dict[str, Any]]:
        """Every item with what it asked and what each size gave."""
        return [
            {
                "key": item.key,
                "asks": _asked(item),
                "results": {size: found[number] for size, found in self.results.items()},
            }
            for number, item in enumerate(self.items)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An evaluation of a task.

    left_out: what was wrong with each row that does not count
    """

    task: Task
    identity: Mapping[str, str]
    name: str
    settings: Settings
    kv_kind: str
    window: int
    stride: int
    sizes: Mapping[str, Size]
    parts: tuple[PartReport, ...]
    left_out: tuple[str, ...]

    def part(self, name: str) -> PartReport:
        """Raises KeyError if there is none of that name."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)

    def to_json(self, *, rows: bool = False) -> dict[str, Any]:
        """Plain values; with `rows` every prompt and answer too."""
        document: dict[str, Any] = {
            "format": "matryo-evaluation",
            "version": 1,
            "model": {"name": self.name, **self.identity},
            "task": {
                "name": self.task.name,
                "digest": self.task.digest,
                "rows": len(self.task.rows),
                "left_out": list(self.left_out),
            },
            "settings": {
                **asdict(self.settings),
                "kv": self.kv_kind,
                "window": self.window,
                "stride": self.stride,
            },
            "sizes": {
                name: {"plan": size.plan.to_json(), "effective": size.effective_parameters}
                for name, size in self.sizes.items()
            },
            "parts": [part.to_json() for part in self.parts],
        }
        if rows:
            document["rows"] = [row for part in self.parts for row in part.rows_to_json()]
        return document

    def save(self, path: Path) -> None:
        """Write all of it, prompts and answers included; the file appears whole or not at all.

        Raises OSError if it cannot be written.
        """
        replace_text(path, json.dumps(self.to_json(rows=True), ensure_ascii=False, indent=1) + "\n")


def size_of(config: TextConfig, plan: Plan) -> Size:
    """A plan with its parameters."""
    return Size(plan, count_parameters(config, plan).effective)


def _intervals(figures: Mapping[str, Interval]) -> dict[str, Any]:
    return {size: one.to_json() for size, one in figures.items()}


def _chance(items: Sequence[Item]) -> float | None:
    counts = [
        len(item.continuations)
        for item in items
        if isinstance(item, ScoreItem) and item.gold is not None
    ]
    return 100.0 * sum(1 / count for count in counts) / len(counts) if counts else None


def _asked(item: Item) -> dict[str, Any]:
    """The row; of a text, only where it is and how many tokens of it count."""
    if isinstance(item, ScoreItem) and item.gold is None:
        tokens = len(item.continuations[0])
        return {"kind": "text", "where": item.row.where, "part": item.row.part, "tokens": tokens}
    return row_to_json(item.row)
