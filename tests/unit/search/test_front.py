"""What no other plan beats, beside the definition."""

from __future__ import annotations

import numpy as np

from matryo.plan import Plan
from matryo.search.front import Measured, best_of_each_size, non_dominated
from matryo.search.measure import Speed


def measured(effective: int, quality: float, decode_ms: float = 1.0, memory: int = 1) -> Measured:
    plan = Plan((0, 1), (32 * effective, 32), 1)
    return Measured(plan, effective, quality, Speed(1.0, decode_ms), memory)


def test_the_front_is_what_no_other_is_better_than(rng: np.random.Generator) -> None:
    costs = [tuple(float(value) for value in row) for row in rng.integers(0, 6, (60, 3))]
    front = {costs[index] for index in non_dominated(costs)}
    for own in costs:
        worse_or_equal = any(other != own and all(np.less_equal(other, own)) for other in costs)
        assert (own in front) == (not worse_or_equal)
    assert len(non_dominated([(1.0, 2.0)] * 3)) == 1


def test_costs_turn_what_is_better_around() -> None:
    one = measured(3, 60.0, 2.5, 700)
    names = ("quality", "latency", "memory")
    assert one.costs(names, higher_is_better=True) == (-60.0, 2.5, 700.0)
    assert one.costs(("quality", "memory"), higher_is_better=False) == (60.0, 700.0)


def test_of_each_range_of_sizes_the_best_is_kept() -> None:
    found = [measured(size, quality) for size, quality in ((1, 5), (2, 4), (9, 3), (10, 6))]
    few = best_of_each_size(found, 2, higher_is_better=False)
    assert [one.effective for one in few] == [2, 9]
    many = best_of_each_size(found, 2, higher_is_better=True)
    assert [one.effective for one in many] == [1, 10]
    assert best_of_each_size([], 3, higher_is_better=True) == []
    assert len(best_of_each_size(found[:1] * 2, 3, higher_is_better=True)) == 1
