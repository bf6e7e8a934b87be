"""Time of other programs is what is neither idle nor ours."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import psutil
import pytest

from matryo.cli.contention import Contention

Machine = namedtuple("Machine", "user system idle iowait guest")
Own = namedtuple("Own", "user system")


@pytest.mark.parametrize(
    ("after", "own", "share"),
    [
        (Machine(30.0, 10.0, 60.0, 0.0, 5.0), Own(30.0, 10.0), 0.0),  # all busy time was ours
        (Machine(30.0, 10.0, 40.0, 20.0, 5.0), Own(10.0, 5.0), 0.25),
        (Machine(0.0, 0.0, 0.0, 0.0, 0.0), Own(0.0, 0.0), 0.0),  # no time has passed
        (Machine(10.0, 0.0, 90.0, 0.0, 0.0), Own(20.0, 0.0), 0.0),  # clocks of different grain
    ],
)
def test_the_share_of_others(
    monkeypatch: pytest.MonkeyPatch, after: Any, own: Any, share: float
) -> None:
    machine = iter([Machine(0.0, 0.0, 0.0, 0.0, 0.0), after])
    process = iter([Own(0.0, 0.0), own])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(machine))
    monkeypatch.setattr(psutil.Process, "cpu_times", lambda _: next(process))
    with Contention() as contention:
        pass
    assert contention.share_of_others == pytest.approx(share)


def test_this_machine_gives_a_share() -> None:
    with Contention() as contention:
        sum(range(100_000))
    assert 0.0 <= contention.share_of_others <= 1.0
