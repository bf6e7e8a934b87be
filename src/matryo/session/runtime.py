"""What all sessions of one model share; nothing in it changes.

In: an engine and what the checkpoint's files say. Out: the questions a session asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from matryo.engine import Engine
from matryo.inputs.text_format import TextFormat
from matryo.media.library import MediaLibrary
from matryo.plan import Plan
from matryo.sampling import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The surroundings of a session.

    find_plan: a plan from a name, a file or a Plan, checked against the weights at hand · eos_ids:
    end an answer
    suppressed: ids that are never chosen · sampling: the checkpoint's own · kv_kind: of new
    sessions
    identity: of the weights, so that a saved session is not continued by others · library: of
    pictures and sound
    """

    engine: Engine
    text: TextFormat
    plans: Mapping[str, Plan]
    find_plan: Callable[[str | Path | Plan], Plan]
    bos_id: int | None
    eos_ids: frozenset[int]
    suppressed: npt.NDArray[np.int64]
    sampling: Sampling
    kv_kind: str
    identity: Mapping[str, str]
    library: MediaLibrary

    def plan_name(self, plan: Plan) -> str:
        """The first name of a plan, or its description if it has none."""
        return next((name for name, known in self.plans.items() if known == plan), plan.describe())
