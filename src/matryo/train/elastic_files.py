"""What `matryo elasticize` leaves: the model, its widths, and what each of them is worth.

In: an elastic decoder, its tokenizer, a report. Out: a directory that transformers loads, with
plans.json and elastic.json beside. Until config.json is there, which comes last, it is marked as
unfinished.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from matryo.checkpoint.atomic import TEMPORARY, UNFINISHED, replace_text, sync_directory
from matryo.checkpoint.beside import CONFIG, PLANS
from matryo.checkpoint.writing import room
from matryo.evaluate.intervals import Interval
from matryo.plan import Plan

REPORT = "elastic.json"
BEFORE, ORDERED, FITTED, RECOVERED = "before", "ordered", "fitted", "recovered"
PERPLEXITY = "perplexity"
AGAIN = "run the same command again: the work of its earlier stages is kept"
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Report:
    """Per stage and width: intervals of the perplexity and of the accuracy by question set."""

    widths: Mapping[str, int]
    stages: Mapping[str, Mapping[str, Mapping[str, Interval]]]

    def table(self) -> str:
        """Lines for people: a row a width, a column a stage and quantity."""
        lines = []
        for quantity in next(iter(self.stages[BEFORE].values())):
            stages = {
                name: found
                for name, found in self.stages.items()
                if all(quantity in values for values in found.values())
            }
            lines.append(f"{quantity} [95 % interval]")
            rows = {
                name: [_cell(found[name][quantity], quantity) for found in stages.values()]
                for name in sorted(self.widths, key=lambda n: -self.widths[n])
            }
            wide = max(len(cell) for cells in (stages, *rows.values()) for cell in cells)
            for name, cells in {"width": [*stages], **rows}.items():
                lines.append(f"  {name:<6}" + "".join(f"  {cell:>{wide}}" for cell in cells))
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The report as `elastic.json` has it."""
        return dataclasses.asdict(self)


def _cell(found: Interval, quantity: str) -> str:
    form = ",.2f" if quantity == PERPLEXITY else ".3f"
    if found.low is None or found.high is None:  # of a single row
        return f"{found.value:{form}}"
    return f"{found.value:{form}} [{found.low:{form}} {found.high:{form}}]"


def write_elastic(model: Any, tokenizer: Any, report: Report, target: Path, dtype: str) -> None:
    """Writes the full model, changed to `dtype`, and what belongs to it into `target`.

    Raises CapacityError if the disk is full.
    """
    with room(target, AGAIN):
        _write(model, tokenizer, report, target, dtype)


def _write(model: Any, tokenizer: Any, report: Report, target: Path, dtype: str) -> None:
    fresh = target / f".hf{TEMPORARY}"
    shutil.rmtree(fresh, ignore_errors=True)
    model.to(DTYPES[dtype]).save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    layers = len(model.get_decoder().layers)
    plans = {
        name: Plan(tuple(range(layers)), (width,) * layers, layers).to_json()
        for name, width in report.widths.items()
    }
    replace_text(fresh / PLANS, json.dumps(plans, indent=1) + "\n")
    replace_text(fresh / REPORT, json.dumps(report.to_json(), indent=1) + "\n")
    for path in sorted(fresh.iterdir(), key=lambda path: path.name == CONFIG):
        path.replace(target / path.name)
    fresh.rmdir()
    (target / UNFINISHED).unlink(missing_ok=True)
    sync_directory(target)
