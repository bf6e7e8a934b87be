"""A rung that became worse is told."""

from __future__ import annotations

from matryo.train.rungs import Change, Measured, changes, table, warnings

BEFORE: Measured = {"small": {"loss": 2.0}, "large": {"loss": 1.5}, "gone": {"loss": 1.0}}
AFTER: Measured = {
    "small": {"loss": 2.25},
    "large": {"loss": 1.25},
    "new": {"loss": 9.0},
    "mix": {"right": 1},
}


def test_changes_are_of_what_was_measured_twice() -> None:
    found = changes(BEFORE, AFTER)
    assert found == [Change("small", 2.0, 2.25), Change("large", 1.5, 1.25)]
    assert table(found)[0].split() == [
        "small", "2.0000", "->", "2.2500", "nats", "a", "token", "(+0.2500)"
    ]  # fmt: skip


def test_an_inner_rung_that_got_worse_is_named_with_what_helps() -> None:
    told = warnings(changes(BEFORE, AFTER), "large")
    assert len(told) == 1 and told[0].startswith("small got worse: 2.0000 -> 2.2500")
    assert "objective.divergence to learn from large" in told[0]
    assert warnings([Change("small", 2.0, 2.001)], "large") == []
    assert "lower the rate" in warnings([Change("large", 1.0, 1.1)], "large")[0]
