"""Sensors on this machine, and on files that say something else."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from matryo.elastic import load
from matryo.elastic.load import SAMPLE_S, Reading, Sensors


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_reading_is_kept_until_it_is_old() -> None:
    clock = Clock()
    sensors = Sensors(clock)
    first = sensors.read()
    clock.now += 0.5 * SAMPLE_S
    assert not sensors.is_due() and sensors.read(queue=3) == Reading(
        **{**{name: getattr(first, name) for name in first.__slots__}, "queue": 3}
    )
    clock.now += SAMPLE_S
    assert sensors.is_due() and sensors.read().seconds == clock.now


def test_figures_are_of_this_machine() -> None:
    clock = Clock()
    sensors = Sensors(clock)
    before = sensors.read()
    # Straight from the system: an allocator may hand out memory that is resident already.
    held = mmap.mmap(-1, 64_000_000)
    held.write(b"1" * len(held))
    clock.now += 1.0
    after = sensors.read(kv_bytes=5, token_seconds=0.25)
    assert after.resident_bytes - before.resident_bytes > 0.8 * len(held)
    assert 0 < after.private_bytes <= after.resident_bytes
    assert 0.0 <= after.others <= 1.0
    assert after.total_bytes is not None and after.available_bytes is not None
    assert 0 < after.available_bytes < after.total_bytes
    assert (after.kv_bytes, after.token_seconds) == (5, 0.25)
    for share in (after.cpu_pressure, after.memory_pressure):
        assert share is None or 0.0 <= share <= 1.0


def test_the_smallest_limit_counts(tmp_path: Path) -> None:
    names = ("max", "v1", "limit", "gone")
    paths = tuple(tmp_path / name for name in names)
    for path, text in zip(paths, ("max\n", "9223372036854771712\n", "2000000000\n"), strict=False):
        path.write_text(text, encoding="ascii")
    files = tuple(load._File(path) for path in paths)
    assert load._smallest(files) == 2_000_000_000
    assert load._smallest(files[:2]) is None
    paths[2].write_text("1000000000\n", encoding="ascii")
    assert load._smallest(files) == 1_000_000_000  # a limit may change
    sensors = Sensors(Clock())
    sensors._latest = Reading(seconds=100.0, memory_limit=3_000)
    assert sensors.read(memory_limit=2_000).memory_limit == 2_000
    assert sensors.read(memory_limit=None).memory_limit == 3_000


def test_what_others_use_is_what_is_neither_idle_nor_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    counters = iter(
        (
            load._Counters(100.0, 0.0, 0.0, 0.0, 0.0, None),
            load._Counters(101.0, 2.0, 0.5, 0.6, 0.25, None),
        )
    )
    monkeypatch.setattr(load, "_counters", lambda *_: next(counters))
    sensors = Sensors(clock)
    clock.now = 101.0
    reading = sensors.read()
    assert reading.others == pytest.approx(0.45)  # (2 - 0.5 - 0.6) of 2
    assert reading.cpu_pressure == pytest.approx(0.25) and reading.memory_pressure is None


def test_without_proc_psutil_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere(type(Path())):  # type: ignore[misc]
        def __new__(cls, *parts: str) -> Path:  # type: ignore[misc]
            return Path("/nowhere", *(part.strip("/") for part in parts))

    monkeypatch.setattr(load, "Path", Nowhere)
    reading = Sensors(Clock()).read()
    assert reading.resident_bytes == reading.private_bytes > 10_000_000
    assert reading.cpu_pressure is None and reading.memory_limit is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only where there is /proc")
def test_proc_says_what_psutil_says() -> None:
    psutil = pytest.importorskip("psutil")
    files = load._Files()
    available, total = load._machine_memory(files.memory)
    assert total == psutil.virtual_memory().total
    assert available == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    counters = load._counters(0.0, files)
    times = psutil.cpu_times()
    assert counters.idle == pytest.approx(times.idle + times.iowait, rel=0.01)
    resident, _ = load._own_memory(files.own_memory)
    assert resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only where there is /proc")
def test_sensors_let_go_of_their_files() -> None:
    sensors = Sensors(Clock())
    descriptor = sensors._files.stat._descriptor
    os.fstat(descriptor)
    del sensors
    with pytest.raises(OSError):
        os.fstat(descriptor)
