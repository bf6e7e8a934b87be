"""What chooses the size of a conversation while it runs.

In: rules, the machine's sensors, the weights. Out: a `Change` now and then. Everything that is
decided is decided by `policy.decide`; here its input is collected and its decisions are carried out
as far as they concern the weights' pages and the trace.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matryo.elastic.ladder import Level
from matryo.elastic.load import Reading, Sensors
from matryo.elastic.memory import give_back, take_again
from matryo.elastic.pace import Pace
from matryo.elastic.policy import (
    Rules,
    Setting,
    State,
    decide,
    memory_limit,
    predicted_bytes,
)
from matryo.elastic.trace import Decision, Recorder
from matryo.errors import CapacityError
from matryo.weights import TextWeights

if TYPE_CHECKING:
    from matryo.engine import Cancel


LONGEST_SLEEP_S = 0.05  # so that a cancellation is noticed


@dataclass(frozen=True, slots=True)
class Change:
    """Go on at this level. `reason` says why, for people."""

    level: Level
    reason: str


class Controller:
    """Chooses the size of one conversation; made by `Model.controller`.

    memory_limit: bytes this process may have resident, beside the policy's own budget; may be set
    at any time · queue: how many requests wait, for the trace
    """

    def __init__(
        self,
        rules: Rules,
        weights: TextWeights,
        *,
        mapped: bool,
        sensors: Sensors | None = None,
        trace: Path | None = None,
    ) -> None:
        """mapped: whether the weights are pages of files, which can be given back.

        Raises CapacityError if not even the leanest level is within the memory there is, OSError if
        the trace cannot be written.
        """
        self.rules = rules
        self.memory_limit: int | None = None
        self.queue = 0
        self._weights, self._mapped = weights, mapped
        self._sensors = sensors or Sensors()
        self._state, self._setting = State(), Setting(0, trim=False, rest=0.0)
        self._pace = Pace()
        self._started = False
        self._check_capacity(self._read(0, 0))
        self._recorder = None if trace is None else Recorder(trace, rules)

    @property
    def level(self) -> Level:
        """The level of now."""
        return self.rules.levels[self._state.level]

    @property
    def rest(self) -> float:
        """Seconds to wait after a token, as a multiple of what it took."""
        return self._setting.rest

    def note_token(self, seconds: float) -> None:
        """A token was decoded in so many seconds."""
        self._pace.note(seconds)

    def rest_after(self, seconds: float, cancel: Cancel | None = None) -> None:
        """A token was decoded in so many seconds: note it, and wait as long as the duty wants."""
        self.note_token(seconds)
        end = time.perf_counter() + seconds * self.rest
        while (left := end - time.perf_counter()) > 0:
            if cancel is not None and cancel.is_set():
                break
            time.sleep(min(left, LONGEST_SLEEP_S))

    def next(self, context_tokens: int, kv_bytes: int) -> Change | None:
        """Look at the machine, if that was not done just now, and say what changes.

        context_tokens, kv_bytes: of the conversation
        """
        if self._started and not self._sensors.is_due():
            return None
        self._started = True
        reading = self._read(context_tokens, kv_bytes)
        before = self._state.level
        self._state, self._setting, reason = decide(self.rules, self._state, reading)
        if self._recorder is not None:
            self._recorder.note(Decision(reading, self._setting, reason))
        self._carry_out(before)
        return Change(self.level, reason) if reason else None

    def _carry_out(self, before: int) -> None:
        levels = self.rules.levels
        if self._state.level != before:
            self._pace.restart()
        if not self._mapped:
            return
        if self._setting.trim:
            give_back(self._weights, self.level.plan)
        elif self._state.level < before:
            take_again(self._weights, self.level.plan, levels[before].plan)

    def _read(self, context_tokens: int, kv_bytes: int) -> Reading:
        return self._sensors.read(
            token_seconds=self._pace.token_seconds,
            latest_token=self._pace.latest,
            slower_tokens=self._pace.slower_half,
            queue=self.queue,
            context_tokens=context_tokens,
            kv_bytes=kv_bytes,
            memory_limit=self.memory_limit,
        )

    def _check_capacity(self, reading: Reading) -> None:
        limit = memory_limit(self.rules, reading)
        leanest = len(self.rules.levels) - 1
        needed = predicted_bytes(self.rules, leanest, reading)
        if limit is not None and needed > limit:
            level = self.rules.levels[leanest]
            raise CapacityError(
                f"{limit / 1e9:.2f} GB of memory are too little for any size of this model; the "
                f"nearest is {level.name} with K/V in {level.kv} and a context of {level.window} "
                f"tokens, which needs {needed / 1e9:.2f} GB",
                needed=needed,
                available=limit,
            )
