"""Which plans are worth having: those that no other beats in everything.

In: what was measured of each plan. Out: the front, thinned to a number that is worth reporting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matryo.plan import Plan
from matryo.search.measure import Speed


@dataclass(frozen=True, slots=True)
class Measured:
    """A plan and what it costs. quality: on the rows of the search · effective: parameters."""

    plan: Plan
    effective: int
    quality: float
    speed: Speed
    resident_bytes: int

    def costs(self, objectives: Sequence[str], *, higher_is_better: bool) -> tuple[float, ...]:
        """One number an objective, less is better."""
        values = {
            "quality": -self.quality if higher_is_better else self.quality,
            "latency": self.speed.decode_ms,
            "memory": float(self.resident_bytes),
        }
        return tuple(values[name] for name in objectives)


def non_dominated(costs: Sequence[tuple[float, ...]]) -> list[int]:
    """Indices of points that no other point is at least as good as in all and better in one."""
    kept: list[int] = []
    for index, own in enumerate(costs):
        beaten = any(
            other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in costs
        )
        if not beaten and own not in [costs[one] for one in kept]:
            kept.append(index)
    return kept


def best_of_each_size(
    found: Sequence[Measured], count: int, *, higher_is_better: bool
) -> list[Measured]:
    """At most `count`: of as many ranges of parameters the plan with the best quality each."""
    if not found:
        return []
    sizes = [one.effective for one in found]
    low, high = min(sizes), max(sizes)
    best: dict[int, Measured] = {}
    for one in found:
        place = 0 if high == low else min(count - 1, count * (one.effective - low) // (high - low))
        known = best.get(place)
        sign = -1.0 if higher_is_better else 1.0
        key = (sign * one.quality, one.effective)
        if known is None or key < (sign * known.quality, known.effective):
            best[place] = one
    return sorted(best.values(), key=lambda one: one.effective)
