"""What the machine says about itself, from sample texts of /proc."""

from __future__ import annotations

import os

import pytest
from benchmarks.contention import Sample, parse_machine, parse_process, share_of_others
from benchmarks.processes import memory_of, parse_status

from benchmarks import contention, machine


def test_cpuinfo_gives_the_model_and_the_flags_that_matter() -> None:
    text = (
        "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu avx2 avx512f sse\n\n"
        "model name\t: other\n"
    )
    assert machine.parse_cpuinfo(text) == ("Some CPU @ 3 GHz", ["avx2", "avx512f"])


def test_arm_features_are_read_too() -> None:
    assert machine.parse_cpuinfo("Features\t: fp asimd asimddp\n") == ("", ["asimd", "asimddp"])


def test_meminfo_gives_bytes() -> None:
    assert machine.parse_meminfo("MemFree: 1 kB\nMemTotal:       24683900 kB\n") == 24683900 * 1024
    with pytest.raises(ValueError, match="MemTotal"):
        machine.parse_meminfo("MemFree: 1 kB\n")


def test_describe_names_everything_a_reader_needs() -> None:
    described = machine.describe()
    assert set(described) >= {
        "cpu",
        "flags",
        "cpus",
        "memory_bytes",
        "system",
        "versions",
        "commit",
        "governor",
    }


def test_busy_ticks_are_all_but_idle_and_waiting() -> None:
    assert parse_machine("cpu  100 5 20 700 30 1 2 3 0 0\ncpu0 1 1 1 1\n") == (861, 131)


def test_process_names_with_spaces_and_brackets_are_parsed() -> None:
    stat = "42 (a ) b) S 7 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 100"
    assert parse_process(stat) == (7, 100)


@pytest.mark.parametrize(
    ("busy", "own", "expected"), [(100, 100, 0.0), (150, 100, 0.25), (90, 100, 0.0), (200, 0, 1.0)]
)
def test_share_of_others_is_what_is_neither_idle_nor_ours(
    busy: int, own: int, expected: float
) -> None:
    assert share_of_others(
        Sample(1000, 500, 50), Sample(1200, 500 + busy, 50 + own)
    ) == pytest.approx(expected)


def test_our_own_work_is_counted_as_ours() -> None:
    before = contention.own_ticks(os.getpid())
    total = 0
    while contention.own_ticks(os.getpid()) < before + 3:
        total += sum(range(100_000))
    assert total > 0


def test_status_gives_resident_and_peak_bytes() -> None:
    assert parse_status("Name:\tx\nVmHWM:\t    200 kB\nVmRSS:\t    100 kB\n") == (102400, 204800)
    resident, peak = memory_of(os.getpid())
    assert 0 < resident <= peak
