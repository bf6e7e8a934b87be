"""What a search may take and what it looks for.

In: options. Out: frozen settings that check themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from matryo.errors import InputError
from matryo.evaluate import Settings

OBJECTIVES = ("quality", "latency", "memory")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 60.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How a search is run.

    budget_s: seconds of this run · trials: most plans that the optimiser tries, if fewer than time
    allows · objectives: `quality` and any of `latency`, `memory` · metric: what quality is; None =
    the one that counts for the task · part: of the task, if it has several · held_out: share of
    rows that only the report sees · keep_bytes: most memory for what plans of a family share
    evaluation: as for `evaluate`; its seed is the search's
    Raises InputError for values that contradict each other or cannot be.
    """

    budget_s: float = 600.0
    trials: int | None = None
    objectives: tuple[str, ...] = OBJECTIVES
    metric: str | None = None
    part: str | None = None
    held_out: float = 0.5
    keep_bytes: int = 1 << 30
    evaluation: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if not 0 < self.budget_s < float("inf"):
            raise InputError(f"budget: expected more than 0 seconds, got {self.budget_s}")
        if self.trials is not None and self.trials < 0:
            raise InputError(f"trials: expected a whole number from 0, got {self.trials}")
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown or "quality" not in self.objectives or len(self.objectives) < 2:
            raise InputError(
                f"objectives: expected quality and at least one of {', '.join(OBJECTIVES[1:])}, "
                f"got {', '.join(self.objectives) or 'none'}"
            )
        if not 0.1 <= self.held_out <= 0.9:
            raise InputError(f"held_out: expected a share from 0.1 to 0.9, got {self.held_out}")


def seconds_of(text: str) -> float:
    """`90s`, `10m`, `1.5h`, or a number of minutes. Raises InputError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if found is None or float(found.group(1)) == 0:
        raise InputError(f"budget: expected a time such as 90s, 10m or 1.5h, got {text!r:.40}")
    return float(found.group(1)) * _UNITS[found.group(2)]
