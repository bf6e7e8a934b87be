"""Which of two sizes a token needs: the small one while it is sure, the large one where it is not.

In: the logits of each token before it is chosen. Out: when to go on at the other size. `decide` is
pure; `Escalation` keeps its state and counts for one conversation. A token that raises the
uncertainty above the threshold is computed again by the large size before it is chosen.

exact: both sizes write the same K/V, so a change leaves no trace · approximate: the large size goes
on in the cache that the small one wrote · reanchor: the large size first computes again what the
small one wrote, where that costs little beside the rest of the answer
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.atomic import replace_text
from matryo.errors import InputError
from matryo.plan import Plan

if TYPE_CHECKING:
    from matryo.engine import CachedSequence

Measure = Literal["entropy", "margin"]
Mode = Literal["exact", "approximate", "reanchor"]
MEASURES: tuple[Measure, ...] = ("entropy", "margin")
MODES: tuple[Mode, ...] = ("exact", "approximate", "reanchor")
_MAX_BYTES = 1 << 16

PREFILL_GAIN = 6.0
"""Tokens that are computed again in the time of one that is generated; 6 to 8 were measured."""
REANCHOR_SHARE = 0.25
"""Most of the rest of an answer that computing the cache again may cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When a size is left; the defaults are guesses, `matryo calibrate` finds better ones.

    measure: entropy of the next token in nats, or margin, the negated distance of the two largest
    logits; both grow with doubt · window: tokens whose mean is compared
    above: the large size from here · below: the small one again · dwell: tokens the large size
    stays at least
    """

    measure: Measure = "entropy"
    window: int = 2
    above: float = 2.5
    below: float = 1.5
    dwell: int = 4

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise InputError(
                f"thresholds: measure is {self.measure!r:.40}; expected {' or '.join(MEASURES)}"
            )
        for name, low in (("window", 1), ("dwell", 0)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= 1024:
                raise InputError(f"thresholds: {name} is {value!r:.40}; expected {low} to 1024")
        for name in ("above", "below"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not math.isfinite(value):
                raise InputError(f"thresholds: {name} is {value!r:.40}; expected a number")
        if self.below > self.above:
            raise InputError(
                f"thresholds: below is {self.below:g}, above {self.above:g}; a size that is taken "
                "and left at once would flap: below must not be larger"
            )

    def save(self, path: Path) -> None:
        """Write a file that `load` reads. It appears whole or not at all. Raises OSError."""
        replace_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Thresholds:
        """Read a file of `save`. Raises InputError for anything else."""
        try:
            with path.open("rb") as file:
                document: Any = json.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: no thresholds can be read: {error}") from error
        known = {one.name for one in fields(cls)}
        if not isinstance(document, dict) or not set(document) <= known:
            raise InputError(f"{path}: expected an object with {', '.join(sorted(known))}")
        return cls(**document)


@dataclass(frozen=True, slots=True)
class State:
    """values: of the last `window` tokens · large: the size of now · stayed: tokens at it"""

    values: tuple[float, ...] = ()
    large: bool = False
    stayed: int = 0


def uncertainty(logits: npt.NDArray[np.float32], measure: Measure) -> float:
    """How unsure logits (V,) are about the next token; larger is less sure."""
    if measure == "margin":
        second, first = np.partition(logits, -2)[-2:]
        return float(second - first)
    shifted = logits - logits.max()
    weights = np.exp(shifted)
    total = float(weights.sum())
    # -inf stands for an id that cannot come: its share is 0, and 0 · -inf would be NaN.
    expected = float(np.dot(weights, np.maximum(shifted, np.float32(-1e4)))) / total
    return max(math.log(total) - expected, 0.0)


def decide(thresholds: Thresholds, state: State, value: float) -> State:
    """The state after a token of uncertainty `value`."""
    values = (*state.values, value)[-thresholds.window :]
    mean = sum(values) / len(values)
    large = state.large
    if not large and mean > thresholds.above:
        large = True
    elif large and mean < thresholds.below and state.stayed >= thresholds.dwell:
        large = False
    return State(values, large, state.stayed + 1 if large == state.large else 0)


@dataclass(slots=True)
class Escalation:
    """Changes between two sizes in one conversation; made by `Model.escalation`.

    small_tokens, large_tokens: computed by each so far · again: of these, computed by both
    """

    small: Plan
    large: Plan
    mode: Mode
    thresholds: Thresholds = field(default_factory=Thresholds)
    small_tokens: int = 0
    large_tokens: int = 0
    again: int = 0
    _state: State = field(default_factory=State)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"mode is {self.mode!r:.40}; expected one of {', '.join(MODES)}")
        if self.small == self.large or not self.large.contains(self.small):
            raise InputError(
                f"{self.small.describe()} is not a smaller size inside {self.large.describe()}: "
                "name two different sizes"
            )
        if self.mode == "exact" and not self.small.same_cache(self.large):
            raise InputError(
                f"{self.small.describe()} and {self.large.describe()} do not write the same K/V: "
                "no change between them is exact; choose sizes of one exact family, or the mode "
                "approximate or reanchor"
            )

    @property
    def plan(self) -> Plan:
        """The size of now."""
        return self.large if self._state.large else self.small

    def see(self, logits: npt.NDArray[np.float32]) -> tuple[Plan, str]:
        """The size to go on with, and why it changes ("" if it does not)."""
        before = self._state.large
        if before:
            self.large_tokens += 1
        else:
            self.small_tokens += 1
        value = uncertainty(logits, self.thresholds.measure)
        self._state = decide(self.thresholds, self._state, value)
        large = self._state.large
        if large == before:
            return self.plan, ""
        mean = sum(self._state.values) / len(self._state.values)
        if large:
            self.again += 1
            self.large_tokens += 1
            return self.plan, f"unsure: {self.thresholds.measure} {mean:.2f}"
        return self.plan, f"sure again: {self.thresholds.measure} {mean:.2f}"

    def follow(self, logits: npt.NDArray[np.float32], sequence: CachedSequence, left: int) -> str:
        """As `see`, and drops what the large size shall compute again for an answer of `left` more
        tokens; returns why the size changes, "" if it does not.
        """
        plan, why = self.see(logits)
        if why and plan == self.large:
            start = sequence.exact_until(plan)
            if self.should_reanchor(len(sequence) - start, left):
                sequence.trim(start)
        return why

    def should_reanchor(self, stale: int, left: int) -> bool:
        """Whether `stale` cached tokens are worth computing again for an answer of `left` more."""
        return self.mode == "reanchor" and stale / PREFILL_GAIN <= REANCHOR_SHARE * left
