"""Seconds of a token: quick to notice a load, slow to believe a single slow token."""

from __future__ import annotations

import pytest

from matryo.elastic.pace import Pace


def paced(*seconds: float) -> float | None:
    pace = Pace()
    for one in seconds:
        pace.note(one)
    return pace.token_seconds


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((0.1,), None),
        ((0.1, 0.2), 0.15),
        ((0.1, 0.1, 0.1, 0.4), 0.1),  # a slow one among quick ones
        ((0.1, 0.1, 0.45, 0.45), 0.45),  # two slow ones are a load
        ((0.9, 0.01, 0.01, 0.01, 0.01, 0.01), 0.01),
    ],
)
def test_the_latest_tokens_count(seconds: tuple[float, ...], expected: float | None) -> None:
    assert paced(*seconds) == (None if expected is None else pytest.approx(expected))


def test_another_size_begins_anew() -> None:
    pace = Pace()
    pace.note(0.1)
    pace.note(0.1)
    pace.restart()
    pace.note(0.3)
    assert pace.token_seconds is None


def test_what_the_slower_half_took() -> None:
    pace = Pace()
    assert pace.latest is None and pace.slower_half == 0.0
    for seconds in (0.1, 0.05, 0.2, 0.15):
        pace.note(seconds)
    assert pace.latest == 0.15 and pace.slower_half == pytest.approx(0.35)
    pace.note(0.05)
    assert pace.slower_half == pytest.approx(0.45)  # three of five
