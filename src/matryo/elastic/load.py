"""What the machine is busy with: processors, memory, battery, temperature, and our own speed.

In: the operating system, and what the caller knows (queue, seconds of a token, K/V). Out: a
`Reading`, plain values. From /proc on Linux (pressure stall information where the kernel has it),
from psutil elsewhere. A reading takes some 0.1 ms and is made at most every `SAMPLE_S`: files stay
open between readings; battery and temperature change slowly and are asked for seldom.
"""

from __future__ import annotations

import os
import re
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

SAMPLE_S = 0.1
SLOW_S = 5.0
_MOST_BYTES = 4096
_PRESSURE_TOTAL = re.compile(rb"^some .*total=(\d+)", re.MULTILINE)
_MEMORY_LINE = re.compile(rb"^(Mem\w+):\s+(\d+) kB", re.MULTILINE)
_NO_LIMIT = 1 << 60  # what cgroup v1 says when there is none is larger
_CGROUP_LIMITS = ("memory.max", "memory.limit_in_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at the machine.

    seconds: of a clock that only moves forward · token_seconds: of one token at the present size,
    None if not known yet · latest_token: of the latest one alone · slower_tokens: what the slower
    half of the latest ones took together · queue: requests that wait
    others: share of the processors that other programs use · cpu_pressure, memory_pressure: share
    of the time in which some task waited, None where nobody tells
    resident_bytes: of this process · private_bytes: of these, not pages of files
    kv_bytes, context_tokens: of the conversation · memory_limit: for this process, None = none
    available_bytes, total_bytes: of the machine's memory · battery: 0 to 1, None without one ·
    plugged: whether it charges, None if unknown · temperature: °C of the hottest sensor
    """

    seconds: float
    token_seconds: float | None = None
    latest_token: float | None = None
    slower_tokens: float = 0.0
    queue: int = 0
    others: float = 0.0
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
    resident_bytes: int = 0
    private_bytes: int = 0
    kv_bytes: int = 0
    context_tokens: int = 0
    memory_limit: int | None = None
    available_bytes: int | None = None
    total_bytes: int | None = None
    battery: float | None = None
    plugged: bool | None = None
    temperature: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, without those that are not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Counters:
    """Of the machine since it was started, in seconds."""

    at: float
    total: float
    idle: float
    own: float
    cpu_stalled: float | None
    memory_stalled: float | None


class _File:
    """A file of the system that is read again and again; empty where there is none."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            self._descriptor = -1
        else:
            weakref.finalize(self, os.close, self._descriptor)

    def read(self) -> bytes:
        """Its beginning, as it is now."""
        try:
            return os.pread(self._descriptor, _MOST_BYTES, 0) if self._descriptor >= 0 else b""
        except OSError:  # the group whose limit it was is gone
            return b""


class _Files:
    """What is read each time."""

    def __init__(self) -> None:
        self.stat, self.memory = _File(Path("/proc/stat")), _File(Path("/proc/meminfo"))
        self.own_memory = _File(Path("/proc/self/statm"))
        self.stalled = {what: _File(Path("/proc/pressure", what)) for what in ("cpu", "memory")}
        self.limits = tuple(_File(path) for path in _cgroup_limit_files())


class Sensors:
    """Reads the machine; the latest reading is kept until it is `SAMPLE_S` old."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slow: dict[str, Any] = {}
        self._slow_at = -SLOW_S
        self._files = _Files()
        self._before = _counters(clock(), self._files)
        self._latest = self._read(self._before)

    def is_due(self) -> bool:
        """Whether the latest reading is old enough for another."""
        return self._clock() - self._latest.seconds >= SAMPLE_S

    def read(self, **known: Any) -> Reading:
        """A reading of now; `known`: fields of `Reading` that the caller knows better."""
        if self.is_due():
            self._latest = self._read(_counters(self._clock(), self._files))
        limits = (known.pop("memory_limit", None), self._latest.memory_limit)
        limit = min((given for given in limits if given is not None), default=None)
        return replace(self._latest, memory_limit=limit, **known)

    def _read(self, now: _Counters) -> Reading:
        before, self._before = self._before, now
        if now.at - self._slow_at >= SLOW_S:
            self._slow, self._slow_at = {**_battery(), "temperature": _temperature()}, now.at
        elapsed = now.total - before.total
        others = elapsed - (now.idle - before.idle) - (now.own - before.own)
        resident, private = _own_memory(self._files.own_memory)
        available, total = _machine_memory(self._files.memory)
        return Reading(
            seconds=now.at,
            others=min(max(others / elapsed, 0.0), 1.0) if elapsed > 0 else 0.0,
            cpu_pressure=_share(now.cpu_stalled, before.cpu_stalled, now.at - before.at),
            memory_pressure=_share(now.memory_stalled, before.memory_stalled, now.at - before.at),
            resident_bytes=resident,
            private_bytes=private,
            memory_limit=_smallest(self._files.limits),
            available_bytes=available,
            total_bytes=total,
            **self._slow,
        )


def _counters(at: float, files: _Files) -> _Counters:
    own = sum(os.times()[:2])
    line = files.stat.read().partition(b"\n")[0]
    if line:
        ticks = [int(word) for word in line.split()[1:9]]
        hertz = os.sysconf("SC_CLK_TCK")
        total, idle = sum(ticks) / hertz, (ticks[3] + ticks[4]) / hertz
    else:
        import psutil

        times = psutil.cpu_times()
        total, idle = sum(times), times.idle
    stalled = {what: _stalled(file) for what, file in files.stalled.items()}
    return _Counters(at, total, idle, own, stalled["cpu"], stalled["memory"])


def _stalled(file: _File) -> float | None:
    """Seconds in which some task waited; None where the kernel does not count."""
    found = _PRESSURE_TOTAL.search(file.read())
    return int(found.group(1)) / 1e6 if found else None


def _share(now: float | None, before: float | None, seconds: float) -> float | None:
    if now is None or before is None:
        return None
    return min(max((now - before) / seconds, 0.0), 1.0) if seconds > 0 else 0.0


def _own_memory(file: _File) -> tuple[int, int]:
    """Resident bytes of this process, and those that are not pages of files."""
    pages = file.read().split()
    if not pages:
        import psutil

        resident = int(psutil.Process().memory_info().rss)
        return resident, resident
    size = os.sysconf("SC_PAGE_SIZE")
    return int(pages[1]) * size, (int(pages[1]) - int(pages[2])) * size


def _machine_memory(file: _File) -> tuple[int | None, int | None]:
    """Available and total bytes."""
    kilobytes = dict(_MEMORY_LINE.findall(file.read()))
    if {b"MemAvailable", b"MemTotal"} <= set(kilobytes):
        return 1024 * int(kilobytes[b"MemAvailable"]), 1024 * int(kilobytes[b"MemTotal"])
    import psutil

    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)


def _cgroup_limit_files() -> tuple[Path, ...]:
    """Files that say how much memory the control group of this process may use."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        root = Path("/sys/fs/cgroup")
        if controllers:
            if "memory" not in controllers.split(","):
                continue
            root = root / "memory"
        found += [root / name.lstrip("/") / file for file in _CGROUP_LIMITS]
    return tuple(path for path in found if path.exists())


def _smallest(files: tuple[_File, ...]) -> int | None:
    texts = (file.read().strip() for file in files)
    return min(
        (int(text) for text in texts if text.isdigit() and int(text) < _NO_LIMIT), default=None
    )


def _battery() -> dict[str, Any]:
    import psutil

    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None:
        return {}
    return {"battery": battery.percent / 100.0, "plugged": battery.power_plugged}


def _temperature() -> float | None:
    import psutil

    if not hasattr(psutil, "sensors_temperatures"):
        return None
    found = [
        sensor.current for sensors in psutil.sensors_temperatures().values() for sensor in sensors
    ]
    return max(found, default=None)
