"""The bootstrap: coverage, pairing, and the same resamples every time."""

from __future__ import annotations

import numpy as np
import pytest

from matryo.evaluate import intervals
from matryo.evaluate.intervals import Bootstrap, Interval


def mean(sums: intervals.F64) -> intervals.F64:
    return sums[..., 0] / sums[..., 1]


def columns(values: intervals.F64) -> intervals.F64:
    return np.stack([values, np.ones_like(values)], axis=1)


def test_an_interval_is_as_wide_as_theory_says(rng: np.random.Generator) -> None:
    values = rng.normal(3.0, 2.0, 400)
    found = Bootstrap(400, seed=0, resamples=4000).interval(columns(values), mean)
    assert found.value == pytest.approx(values.mean())
    assert found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_about_95_of_100_intervals_hold_the_truth(rng: np.random.Generator) -> None:
    held = 0
    for _ in range(100):
        found = Bootstrap(60, seed=1, resamples=300).interval(
            columns(rng.normal(0.0, 1.0, 60)), mean
        )
        assert found.low is not None and found.high is not None
        held += found.low <= 0.0 <= found.high
    assert 85 <= held <= 100


def test_pairing_removes_what_both_share(rng: np.random.Generator) -> None:
    hard = rng.normal(0.0, 10.0, 200)
    ours, theirs = hard + 0.5, hard + rng.normal(0.0, 0.1, 200)
    found = Bootstrap(200, seed=0).difference(columns(ours), columns(theirs), mean)
    assert found.low is not None and found.high is not None
    assert 0.4 < found.low < 0.5 < found.high < 0.6


def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = columns(np.arange(50.0))
    whole = Bootstrap(50, seed=3, resamples=40).sums(values)
    monkeypatch.setattr(intervals, "_COUNTS", 120)
    assert np.array_equal(Bootstrap(50, seed=3, resamples=40).sums(values), whole)
    assert not np.array_equal(Bootstrap(50, seed=4, resamples=40).sums(values), whole)


def test_one_row_has_no_interval_and_what_is_no_number_is_null() -> None:
    assert Bootstrap(1, seed=0).interval(columns(np.ones(1)), mean) == Interval(1.0, None, None)
    assert Interval(float("nan"), None, None).to_json()["value"] is None
