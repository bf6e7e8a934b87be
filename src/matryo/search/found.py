"""What a search found: plans with everything that was measured of them, as a document and a report.

In: a laboratory and the plans to report. Out: `Found`; its JSON is a file of plans that `--size
plans.json:NAME` takes everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matryo.checkpoint.atomic import replace_text
from matryo.evaluate.intervals import Interval
from matryo.plan import PLANS_FORMAT, Plan, shape_of
from matryo.search.front import Measured
from matryo.search.measure import Speed, device
from matryo.search.sensitivity import Change

if TYPE_CHECKING:
    from matryo.search.laboratory import Laboratory


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan on rows that the search did not see.

    own: whether it is one of the model's own sizes · above_line: how much better than the straight
    line from the smallest to the largest
    """

    plan: Plan
    effective: int
    quality: Interval
    above_line: Interval
    speed: Speed
    resident_bytes: int
    own: bool

    @property
    def beats_line(self) -> bool:
        """Whether it is better than the line in 97.5 % of resamples."""
        return self.above_line.low is not None and self.above_line.low > 0

    def to_json(self) -> dict[str, Any]:
        """The plan as plan files spell it, and its figures."""
        return {
            **self.plan.to_json(),
            "measured": {
                "effective_parameters": self.effective,
                "quality": self.quality.to_json(),
                "above_line": self.above_line.to_json(),
                **self.speed.to_json(),
                "resident_bytes": self.resident_bytes,
                "own": self.own,
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result of a search.

    candidates: by name, smallest first, the model's own sizes among them · num_measured: plans that
    were measured in all · searched, held_out: rows
    """

    model_name: str
    identity: Mapping[str, str]
    shape: Mapping[str, object]
    task_name: str
    task_digest: str
    metric: str
    unit: str
    higher_is_better: bool
    objectives: tuple[str, ...]
    seed: int
    kv_kind: str
    searched: int
    held_out: int
    num_measured: int
    trials: int
    candidates: Mapping[str, Candidate]
    changes: tuple[Change, ...]
    device: Mapping[str, Any]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A file of plans (`--size plans.json:NAME`) with all figures."""
        return {
            "format": PLANS_FORMAT,
            "version": 1,
            "model": {"name": self.model_name, **self.identity, **self.shape},
            "task": {
                "name": self.task_name,
                "digest": self.task_digest,
                "metric": self.metric,
                "unit": self.unit,
                "higher_is_better": self.higher_is_better,
                "rows_searched": self.searched,
                "rows_held_out": self.held_out,
                "left_out": list(self.left_out),
            },
            "search": {
                "objectives": list(self.objectives),
                "seed": self.seed,
                "kv": self.kv_kind,
                "plans_measured": self.num_measured,
                "trials": self.trials,
                "device": dict(self.device),
            },
            "plans": {name: one.to_json() for name, one in self.candidates.items()},
            "sensitivity": [change.to_json() for change in self.changes],
        }

    def save(self, path: Path) -> None:
        """Write the file of plans; it appears whole or not at all. Raises OSError if it cannot."""
        replace_text(path, json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n")


def found_of(
    laboratory: Laboratory,
    own: Mapping[str, Measured],
    kept: Sequence[Measured],
    changes: Sequence[Change],
    trials: int,
) -> Found:
    """Put together what is known of the model's sizes and the plans that were kept."""
    names: dict[Plan, str] = {one.plan: name for name, one in own.items()}
    measured = sorted([*own.values(), *kept], key=lambda one: one.effective)
    candidates: dict[str, Candidate] = {}
    for one in measured:
        name = names.get(one.plan) or new_name(one.effective, candidates)
        candidates[name] = Candidate(
            plan=one.plan,
            effective=one.effective,
            quality=laboratory.interval(one.plan),
            above_line=laboratory.above_line(one.plan),
            speed=one.speed,
            resident_bytes=one.resident_bytes,
            own=one.plan in names,
        )
    model = laboratory.model
    return Found(
        model_name=model.name,
        identity=model.identity,
        shape=shape_of(model.config),
        task_name=laboratory.task.name,
        task_digest=laboratory.task.digest,
        metric=laboratory.metric.name,
        unit=laboratory.metric.unit,
        higher_is_better=laboratory.metric.higher_is_better,
        objectives=laboratory.settings.objectives,
        seed=laboratory.settings.evaluation.seed,
        kv_kind=laboratory.evaluator.kv_kind,
        searched=len(laboratory.searched),
        held_out=len(laboratory.held_out),
        num_measured=len(laboratory.measured),
        trials=trials,
        candidates=candidates,
        changes=tuple(changes),
        device=device(),
        left_out=tuple(laboratory.left_out),
    )


def new_name(effective: int, taken: Mapping[str, object]) -> str:
    """`e1.26m` or `e2.49b`, after effective parameters; with a letter if there is one already."""
    size, unit = (effective / 1e9, "b") if effective >= 1e9 else (effective / 1e6, "m")
    name = f"e{size:.2f}{unit}"
    suffixes = ["", *(f"-{number}" for number in range(2, len(taken) + 3))]
    return next(name + suffix for suffix in suffixes if name + suffix not in taken)
