"""The benchmarks of elastic execution, small: they measure what they say."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.elastic_load import summary
from benchmarks.elastic_switches import exact_family, run

import matryo


def test_switches_agree_with_the_plans_alone() -> None:
    with matryo.load() as model:
        report = run(model, 40, seed=1)
        family = exact_family(model)
    assert report["tokens"] == report["switches"] == report["same_bits"] == 40
    assert len(report["plans"]) == len(family) > 2
    assert sum(times["count"] for times in report["token_ms"].values()) == 40


def test_a_plan_outside_the_family_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared can differ: an approximate plan among them is noticed."""
    from benchmarks import elastic_switches
    from matryo.elastic.ladder import levels

    def everything(model: matryo.Model) -> list[Any]:
        weights = model._opened.weights
        ladder = levels(model.config, weights, model.plans, "large", kv="bf16", chunk=256)
        return [level for level in ladder if level.kv == "bf16"]

    monkeypatch.setattr(elastic_switches, "exact_family", everything)
    with matryo.load() as model:
        report = run(model, 20, seed=1)
    assert report["same_bits"] < 20


def test_the_summary_says_when_the_limit_was_kept_again() -> None:
    tokens = [
        {"at": t / 10, "seconds": 0.5 if 100 <= t < 115 else 0.1, "size": "b" if t < 215 else "e"}
        for t in range(300)
    ]
    for token in tokens[103:215]:
        token["size"] = "small"
    readings = [
        {"seconds": 0.1, "size": "b", "reason": ""},
        {"seconds": 11.0, "size": "small", "reason": "slow"},
    ]
    for token in tokens[215:]:
        token["size"] = "b"
    found = summary(tokens, readings, 0.2, 10.0, 20.0, cpu=True)
    assert found["last_above_the_limit_s_after_the_load_began"] == pytest.approx(1.6)
    assert found["share_of_values_below_the_limit_2_s_after"] == 1.0
    assert found["largest_size_again_s_after_the_load_ended"] == pytest.approx(1.5)
    assert found["changes"] == [[11.0, "small", "slow"]] and found["longest_pause_s"] == 0.5
