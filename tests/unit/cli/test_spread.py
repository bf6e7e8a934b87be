"""A spread shows the middle and the ends of what was measured."""

from __future__ import annotations

import pytest

from matryo.cli.spread import Spread


def test_the_median_is_not_moved_by_one_bad_round() -> None:
    assert Spread.of([10.0, 11.0, 500.0]).median == 11.0


@pytest.mark.parametrize(
    ("values", "digits", "factor", "text"),
    [
        ([1.0, 2.0, 4.0], 1, 1.0, "2.0 (1.0-4.0)"),
        ([0.5, 0.25], 0, 100.0, "38 (25-50)"),
        ([3.0], 2, 1.0, "3.00"),
        ([3.001, 3.002], 1, 1.0, "3.0"),
    ],
)
def test_format(values: list[float], digits: int, factor: float, text: str) -> None:
    assert Spread.of(values).format(digits, factor) == text


def test_json_keeps_every_round_in_order() -> None:
    assert Spread.of([2, 1, 3]).to_json() == {
        "median": 2.0,
        "low": 1.0,
        "high": 3.0,
        "rounds": (2.0, 1.0, 3.0),
    }


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Spread.of([])
