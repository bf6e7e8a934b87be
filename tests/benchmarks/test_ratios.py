"""Ratios of interleaved rounds."""

from __future__ import annotations

import pytest
from benchmarks.ratios import FAST_FROM, Spread, crosses_one, ratios, spread, state_of


def test_spread_gives_median_and_quartiles() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 2.0, 4.0, 5)


def test_one_value_is_its_own_range() -> None:
    assert spread([2.5]) == Spread(2.5, 2.5, 2.5, 1)


def test_no_values_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_ratios_pair_rounds_and_leave_out_idle_ones() -> None:
    assert ratios([4.0, 9.0, 5.0], [2.0, 3.0, 0.0]) == [2.0, 3.0]


def test_unpaired_rounds_are_an_error() -> None:
    with pytest.raises(ValueError, match="2 rounds of ours against 1"):
        ratios([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.9, 1.1, True), (1.01, 1.2, False), (0.5, 0.9, False), (1.0, 1.5, True)],
)
def test_a_range_that_includes_one_is_no_difference(
    low: float, high: float, expected: bool
) -> None:
    assert crosses_one(Spread((low + high) / 2, low, high, 5)) is expected


@pytest.mark.parametrize(
    ("bandwidths", "expected"),
    [([30.0, 31.0], "slow"), ([48.0, FAST_FROM], "fast"), ([30.0, 48.0], "mixed"), ([], "mixed")],
)
def test_state_needs_all_measurements_to_agree(bandwidths: list[float], expected: str) -> None:
    assert state_of(bandwidths) == expected
