"""Logits that were computed before their tokens were chosen: the checking half of speculation.

In: a pass over the last id and some guesses. Out: the logits after each of them, for as long as the
session chooses what was guessed. As every pass gives the same bits whatever its number of ids, and
the random number of a token depends on seed and position alone, the answer is that of one pass an
id, for greedy and for sampled tokens alike: not only the same distribution, the same ids.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from matryo.engine import F32, CachedSequence, Engine
from matryo.plan import Plan
from matryo.session.draft import Choose, Draft, Drafter


@dataclass(slots=True)
class Ahead:
    """One pass: `ids` stand at `start` of the session, `logits` (n, V) follow each of them."""

    start: int
    ids: tuple[int, ...]
    logits: F32
    plan: Plan
    drafter: Drafter
    draft: Draft
    seconds: float
    kept: int = 0

    @classmethod
    def run(
        cls,
        engine: Engine,
        sequence: CachedSequence,
        plan: Plan,
        last: int,
        drafter: Drafter,
        draft: Draft,
    ) -> Ahead:
        """The pass over the last id of a session and the guesses behind it."""
        start, ids = len(sequence), (last, *draft.ids)
        started = time.perf_counter()
        logits = engine.extend(sequence, plan, ids)
        return cls(start, ids, logits, plan, drafter, draft, time.perf_counter() - started)

    @property
    def first(self) -> F32:
        """The logits (V,) after the last id that was there."""
        logits: F32 = self.logits[0]
        return logits

    def after(self, ids: Sequence[int], plan: Plan) -> F32 | None:
        """The logits (V,) after the last of `ids`, if that was guessed and `plan` is the same."""
        row = len(ids) - self.start - 1
        if not 0 < row < len(self.ids) or plan != self.plan:
            return None
        if tuple(ids[self.start :]) != self.ids[: row + 1]:
            return None
        self.kept = row
        logits: F32 = self.logits[row]
        return logits

    def close(self) -> None:
        """Tells the drafter how many of its guesses were right."""
        self.drafter.length.observe(self.draft, self.kept, self.seconds)


def first_draft(
    drafters: Sequence[Drafter],
    ids: Sequence[int],
    room: int,
    choose: Choose,
) -> tuple[Drafter, Draft]:
    """The first drafter that has guesses worth checking, at most `room`; else the last without."""
    for drafter in drafters:
        count = min(drafter.length.next(), room)
        draft = drafter.propose(ids, count, choose) if count > 0 else Draft((), 0.0)
        if draft.ids:
            return drafter, draft
    return drafters[-1], Draft((), 0.0)
