"""The plans of a step: reproducible, legal, in the shares that the recipe asks for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from helpers.random_weights import SHAPE, config_of
from matryo.errors import ConfigError, PlanError
from matryo.plan import Plan, full_plan
from matryo.train.widths import MIX, WidthSchedule, blocks_left_out

CONFIG = config_of(SHAPE)
KEPT = (*range(5), *range(10, 15))
RUNGS = {
    "small": Plan(KEPT, (64,) * 10, 5),
    "medium": Plan(tuple(range(15)), (96,) * 15, 5),
    "large": full_plan(CONFIG),
}


def schedule(**changes: Any) -> WidthSchedule:
    values: dict[str, Any] = {
        "rungs": RUNGS,
        "weights": {"small": 1.0, "medium": 1.0, "large": 2.0},
        "mode": "sum",
        "mixes": 0,
        "mix_weight": 1.0,
        "skippable": blocks_left_out(RUNGS),
        "teaches": False,
        "seed": 5,
    }
    return WidthSchedule(**{**values, **changes}).check(CONFIG)


def test_summing_runs_every_rung_the_widest_first() -> None:
    passes = schedule(mixes=1).passes(0)
    assert [one.name for one in passes] == ["large", "small", "medium", MIX]
    assert [one.weight for one in passes] == pytest.approx([0.4, 0.2, 0.2, 0.2])


def test_sampling_follows_the_weights() -> None:
    sampled = schedule(mode="sample", mixes=0.5)
    counts = Counter(sampled.passes(step)[0].name for step in range(2000))
    shares = {"large": 0.25, "small": 0.125, "medium": 0.125, MIX: 0.5}
    assert {name: counts[name] / 2000 for name in shares} == pytest.approx(shares, abs=0.04)
    assert all(len(sampled.passes(step)) == 1 for step in range(20))


def test_a_step_is_the_same_however_often_it_is_asked_for() -> None:
    first, again = schedule(mixes=2), schedule(mixes=2)
    assert [first.passes(n) for n in range(9)] == [again.passes(n) for n in range(9)]
    assert schedule(mixes=2, seed=6).passes(0) != first.passes(0)


def test_a_teacher_runs_first_and_only_once() -> None:
    sampled = schedule(mode="sample", teaches=True)
    for step in range(30):
        teacher, *others = sampled.passes(step)
        assert teacher.name == "large"
        assert teacher.weight == (0.0 if others else 1.0)
        assert [one.weight for one in others] == [1.0] * len(others)


def test_mixes_skip_blocks_and_take_the_widths_of_the_rungs() -> None:
    assert schedule().skippable == ((5, 6, 7, 8, 9),)
    rng, seen = np.random.default_rng(0), set()
    layers: Counter[tuple[int, ...]] = Counter()
    for _ in range(200):
        plan = schedule().mix(rng).check(CONFIG)
        layers[plan.layers] += 1
        for layer, width in zip(plan.layers, plan.ffn_width, strict=True):
            seen.add((layer in KEPT, width))
    assert set(layers) == {KEPT, tuple(range(15))} and min(layers.values()) > 60
    assert seen == {(True, 64), (True, 96), (True, 192), (False, 96), (False, 192)}


def test_blocks_with_different_histories_stay_apart() -> None:
    rungs = {
        "a": Plan((0, 1, 4, 7), (32,) * 4, 3),
        "b": Plan((0, 1, 2, 3, 4, 7), (32,) * 6, 3),
        "c": Plan(tuple(range(8)), (32,) * 8, 3),
    }
    assert blocks_left_out(rungs) == ((2, 3), (5, 6))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rungs": {}, "weights": {}}, "no rung"),
        ({"weights": {"small": 1.0}}, "large, medium"),
        ({"weights": {"small": 1.0, "medium": -1.0, "large": 1.0}}, "negative"),
        ({"mode": "sample", "mixes": 1.5}, "0 to 1"),
        ({"mixes": 0.5}, "whole number"),
        ({"rungs": {"x": Plan(KEPT, (192,) * 10, 5), "y": Plan(tuple(range(15)), (96,) * 15, 5)},
          "weights": {"x": 1.0, "y": 1.0}}, "not inside"),
    ],
)  # fmt: skip
def test_schedules_that_cannot_run_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        schedule(**changes)


def test_a_block_that_others_read_from_is_refused() -> None:
    with pytest.raises(PlanError, match="cannot be skipped"):
        schedule(skippable=((4,),))
