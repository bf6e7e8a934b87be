"""The journal of a disk without room stops the run with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from matryo.errors import CapacityError
from matryo.train.journal import Journal, read

RECORD = {
    "step": 1, "steps": 2, "losses": {"large": 1.0}, "rate": 0.1, "tokens_per_second": 1.0,
    "peak_share": 0.1, "seconds_left": 1.0,
}  # fmt: skip


def quiet(message: str) -> None:
    """Nobody reads along."""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_line_that_finds_no_room_is_no_line(tmp_path: Path) -> None:
    with (
        pytest.raises(CapacityError, match=rf"{tmp_path}: .*: free some space and run the same"),
        Journal(tmp_path, 0, quiet) as journal,
    ):
        journal._log.close()
        journal._log = open("/dev/full", "a", encoding="utf-8")
        journal.write(RECORD)
    assert read(tmp_path) == []


def test_a_new_run_forgets_what_was_measured_before_an_older_one(tmp_path: Path) -> None:
    for step, left in ((-1, []), (0, [0]), (1, [0, 1])):
        with Journal(tmp_path, -1, quiet) as journal:
            journal.write({"step": 0, "held_out": {}})
            journal.write(RECORD)
        with Journal(tmp_path, step, quiet):
            assert [record["step"] for record in read(tmp_path)] == left
