"""Rows of the report from repetitions."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.summary import rows


def repetition(
    number: int,
    contender: str,
    rate: float,
    bandwidth: float = 30.0,
    others: float = 0.0,
    **details: float,
) -> dict[str, Any]:
    result = {
        "seconds": 10.0 / rate,
        "tokens": 10,
        "resident_bytes": 7,
        "peak_bytes": 9,
        "details": details,
    }
    return {
        "round": number,
        "contender": contender,
        "result": result,
        "bandwidth_before": bandwidth,
        "bandwidth_after": bandwidth,
        "others": others,
    }


def record(*measurements: dict[str, Any]) -> dict[str, Any]:
    return {"title": "e2b decode", "measurements": list(measurements), "dropped": {}}


def test_the_first_round_is_discarded_and_ratios_are_taken_within_rounds() -> None:
    ours, theirs = rows(
        record(
            repetition(0, "ours", 1000.0), repetition(0, "llama_cpp", 1.0),
            repetition(1, "ours", 20.0), repetition(1, "llama_cpp", 10.0),
            repetition(2, "ours", 60.0), repetition(2, "llama_cpp", 20.0),
        )
    )  # fmt: skip
    assert ours.rate.median == pytest.approx(40.0)
    assert ours.ratios == {}
    assert theirs.ratios["all"].median == pytest.approx(2.5)
    assert theirs.ratios["all"].count == 2


def test_rounds_are_split_by_the_bandwidth_beside_ours() -> None:
    _, theirs = rows(
        record(
            repetition(1, "ours", 20.0, bandwidth=30.0),
            repetition(1, "llama_cpp", 10.0, bandwidth=48.0),
            repetition(2, "ours", 30.0, bandwidth=48.0),
            repetition(2, "llama_cpp", 10.0, bandwidth=30.0),
        )
    )  # fmt: skip
    assert theirs.ratios["slow"].median == pytest.approx(2.0)
    assert theirs.ratios["fast"].median == pytest.approx(3.0)


def test_busy_rounds_are_left_out_unless_nothing_else_is_there() -> None:
    quiet = [repetition(1, "ours", 20.0), repetition(1, "llama_cpp", 10.0)]
    busy = [repetition(2, "ours", 5.0, others=0.5), repetition(2, "llama_cpp", 10.0)]
    _, theirs = rows(record(*quiet, *busy))
    assert theirs.ratios["all"].median == pytest.approx(2.0)
    assert not theirs.busy
    _, theirs = rows(record(*busy))
    assert theirs.ratios["all"].median == pytest.approx(0.5)
    assert theirs.busy


def test_share_of_the_bandwidth_comes_from_the_needed_bytes() -> None:
    (ours,) = rows(record(repetition(1, "ours", 20.0, bandwidth=30.0, needed_bytes=1.2e9)))
    assert ours.roofline["slow"].median == pytest.approx(0.8)
    assert "fast" not in ours.roofline


def test_a_contender_without_finished_rounds_has_no_row() -> None:
    assert [
        row.contender
        for row in rows(record(repetition(0, "llama_cpp", 1.0), repetition(1, "ours", 2.0)))
    ] == ["ours"]
