"""Where guesses of the next tokens come from: a smaller plan of the same weights, or the text.

In: the ids so far. Out: a few ids that may follow. A guess can only cost time: the session runs all
of them through its own plan in one pass and keeps those that it would have chosen itself.
Sources: speculative decoding, arXiv 2211.17192; prompt lookup, as in transformers'
`prompt_lookup_num_tokens`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from matryo.engine import F32, CachedSequence, Engine
from matryo.errors import PlanError
from matryo.plan import Plan
from matryo.session.runtime import Runtime

Choose = Callable[[F32, Sequence[int]], int]
"""The session's own choice of a token from logits (V,) and the ids before it."""

Guesser = str | Path | Plan
"""Asked for by a user: "lookup", a plan (name, file or Plan), or "auto" for both."""

LONGEST_NGRAM, SHORTEST_NGRAM = 4, 2
MAX_DRAFT = 8
"""Most guesses of one pass."""
_PROBE_EVERY = 48  # tokens after which guessing is tried again where it did not pay
_MEMORY = 0.9  # of the running means


@dataclass(frozen=True, slots=True)
class Draft:
    """Guessed ids, and what guessing them took in seconds."""

    ids: tuple[int, ...]
    seconds: float


class Drafter(Protocol):
    """Anything that guesses."""

    @property
    def length(self) -> DraftLength:
        """How many guesses are worth it."""

    def propose(self, ids: Sequence[int], count: int, choose: Choose) -> Draft:
        """At most `count` ids that may follow `ids`; none if there is no idea."""


@dataclass(slots=True)
class LookupDrafter:
    """What followed the last few ids where they stood before. Costs nothing."""

    length: DraftLength = field(default_factory=lambda: DraftLength())
    _ends: dict[tuple[int, ...], int] = field(default_factory=dict)
    _indexed: int = 0

    def propose(self, ids: Sequence[int], count: int, choose: Choose) -> Draft:
        """The continuation of the latest earlier place with the longest common ending.

        `ids` are those of the last call and more.
        """
        for end in range(self._indexed + 1, len(ids)):
            for size in range(SHORTEST_NGRAM, min(LONGEST_NGRAM, end) + 1):
                self._ends[tuple(ids[end - size : end])] = end
        self._indexed = len(ids) - 1
        for size in range(LONGEST_NGRAM, SHORTEST_NGRAM - 1, -1):
            end = self._ends.get(tuple(ids[-size:]), 0)
            if end:
                return Draft(tuple(ids[end : end + count]), 0.0)
        return Draft((), 0.0)


@dataclass(slots=True)
class PlanDrafter:
    """A smaller plan continues in the cache of the larger one, which then forgets what it wrote.

    The keys and values of the prompt are the larger plan's: of little weight for guesses, and
    nothing is computed or kept twice.
    """

    engine: Engine
    plan: Plan
    sequence: Callable[[], CachedSequence]
    length: DraftLength = field(default_factory=lambda: DraftLength())

    def propose(self, ids: Sequence[int], count: int, choose: Choose) -> Draft:
        """`count` steps of the plan, each with the session's own choice and random number."""
        sequence = self.sequence()
        before = len(sequence)
        if self.plan.owners != sequence.cache.owners:
            return Draft((), 0.0)  # the session has moved to a plan with other keys and values
        started = time.perf_counter()
        guessed = list(ids)
        for _ in range(count):
            logits = self.engine.decode([sequence], [self.plan], guessed[-1:])
            guessed.append(choose(logits[-1], guessed))
        sequence.trim(before)
        return Draft(tuple(guessed[len(ids) :]), time.perf_counter() - started)


@dataclass(slots=True)
class DraftLength:
    """How many guesses a pass should check, from what the last passes took and kept.

    With p the chance that a guess is right, c the time of a guess and v(n) that of a pass over n
    ids, k guesses bring 1 + p + ... + p^k tokens in k·c + v(k + 1). `next` takes the k of the most
    tokens a second, 0 where guessing loses, and then tries again from time to time.
    """

    longest: int = MAX_DRAFT
    chance: float = 0.7
    guess: float | None = None
    passes: dict[int, float] = field(default_factory=dict)
    _idle: int = 0

    def next(self) -> int:
        """Guesses for the next pass."""
        if 1 not in self.passes:
            return 0  # nothing to compare with yet
        if len(self.passes) == 1:
            return min(2, self.longest)
        best = max(range(self.longest + 1), key=self.tokens_per_second)
        if best:
            self._idle = 0
            return best
        self._idle += 1
        if self._idle < _PROBE_EVERY:
            return 0
        self._idle = 0
        return min(2, self.longest)

    def tokens_per_second(self, count: int) -> float:
        """Expected with `count` guesses a pass."""
        tokens = sum(self.chance**power for power in range(count + 1))
        return tokens / (count * (self.guess or 0.0) + self._pass_seconds(count + 1))

    def observe(self, draft: Draft, kept: int, seconds: float) -> None:
        """Takes in one pass over 1 + len(draft.ids) ids, of whose guesses `kept` were right."""
        count = len(draft.ids)
        self.passes[count + 1] = _mean(self.passes.get(count + 1), seconds)
        if not count:
            return
        self.guess = _mean(self.guess, draft.seconds / count)
        for number in range(min(kept + 1, count)):
            self.chance = _mean(self.chance, float(number < kept))
        self.chance = min(self.chance, 0.99)

    def _pass_seconds(self, num_ids: int) -> float:
        """Seen, or along the line through the passes of one id and of the nearest other number."""
        if num_ids in self.passes:
            return self.passes[num_ids]
        one = self.passes[1]
        near = min((n for n in self.passes if n > 1), key=lambda n: abs(n - num_ids))
        slope = max(0.0, (self.passes[near] - one) / (near - 1))
        return one + slope * (num_ids - 1)


def make_drafters(
    wanted: Guesser | None, runtime: Runtime, plan: Plan, sequence: Callable[[], CachedSequence]
) -> list[Drafter]:
    """Those of one answer by `plan`, in the order they are asked.

    Raises PlanError for a smaller plan that does not keep the same layers with keys and values.
    """
    if wanted is None:
        return []
    lookup: list[Drafter] = [LookupDrafter()] if wanted in ("lookup", "auto") else []
    if wanted == "lookup":
        return lookup
    smaller = _smallest_inside(runtime, plan) if wanted == "auto" else runtime.find_plan(wanted)
    if smaller is None:
        return lookup
    if smaller.owners != plan.owners:
        raise PlanError(
            f"draft {smaller.describe()} keeps other layers with keys and values than "
            f"{runtime.plan_name(plan)}; both must keep the same"
        )
    return [*lookup, PlanDrafter(runtime.engine, smaller, sequence)]


def _smallest_inside(runtime: Runtime, plan: Plan) -> Plan | None:
    inside = (
        other
        for other in runtime.plans.values()
        if other != plan and other.owners == plan.owners and plan.contains(other)
    )
    return min(inside, key=lambda other: sum(other.ffn_width), default=None)


def _mean(before: float | None, value: float) -> float:
    return value if before is None else _MEMORY * before + (1.0 - _MEMORY) * value
