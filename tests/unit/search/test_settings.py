"""Budgets and objectives that contradict themselves are refused."""

from __future__ import annotations

from typing import Any

import pytest

from matryo.errors import InputError
from matryo.search.settings import SearchSettings, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("2", 120), (" 3 m ", 180)]
)
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0m", "-5m", "ten", "5d", "5m3s", "1e3s", "inf"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="budget: expected a time"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_s": 0.0}, "budget: expected more than 0"),
        ({"budget_s": float("inf")}, "budget"),
        ({"trials": -1}, "trials"),
        ({"objectives": ("quality",)}, "quality and at least one"),
        ({"objectives": ("latency", "memory")}, "quality and at least one"),
        ({"objectives": ("quality", "taste")}, "quality and at least one"),
        ({"objectives": ()}, "got none"),
        ({"held_out": 0.0}, "held_out"),
        ({"held_out": 1.0}, "held_out"),
    ],
)
def test_settings_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchSettings(**options)
