"""The ledger against what this process really has in memory."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from matryo.elastic import ledger as module
from matryo.elastic.ledger import read_ledger

MB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="smaps and pagemap are Linux's")


@linux
def test_mapped_files_count_what_was_touched(tmp_path: Path) -> None:
    path = tmp_path / "shell.bin"
    path.write_bytes(b"\1" * (8 * MB))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        mapped.madvise(mmap.MADV_RANDOM)
        before = read_ledger([path], {}, {}).row("shell.bin")
        assert (before.kind, before.total_bytes) == (
            "mapped",
            8 * MB,
        ) and before.resident_bytes < 4 * MB
        assert sum(mapped[:: mmap.PAGESIZE]) > 0
        assert read_ledger([path], {}, {}).row("shell.bin").resident_bytes == 8 * MB
        del mapped


@linux
def test_arrays_count_the_pages_that_are_present() -> None:
    # numpy may answer small requests from pages that were touched before; a mapping is fresh.
    mapping = mmap.mmap(-1, 16 * MB)
    mapping.madvise(mmap.MADV_NOHUGEPAGE)
    array = np.frombuffer(mapping, np.uint8)
    fresh = read_ledger([], {"K/V": [array]}, {}).row("K/V")
    assert fresh.total_bytes == 16 * MB and fresh.resident_bytes < 2 * MB
    array[: 4 * MB] = 1
    touched = read_ledger([], {"K/V": [array]}, {}).row("K/V").resident_bytes
    assert 4 * MB <= touched < 8 * MB
    small = [np.ones(100, np.uint8) for _ in range(10)]
    assert (
        read_ledger([], {"K/V": [*small, np.zeros(0, np.uint8)]}, {}).row("K/V").resident_bytes
        == 1000
    )


@linux
def test_rows_add_up_to_the_resident_set(tmp_path: Path) -> None:
    array = np.ones(8 * MB, np.uint8)
    ledger = read_ledger([], {"weights": [array]}, {"counted": 3 * MB})
    assert sum(row.resident_bytes for row in ledger.rows) == ledger.resident_bytes
    assert ledger.row("counted").resident_bytes == 3 * MB and ledger.source == "/proc/self/smaps"
    status = Path("/proc/self/status").read_text()
    stated = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert abs(ledger.resident_bytes / 1024 - stated) < 0.1 * stated
    document = ledger.to_json()
    assert document["resident_bytes"] == ledger.resident_bytes and len(document["rows"]) == len(
        ledger.rows
    )
    with pytest.raises(KeyError):
        ledger.row("nothing")


def test_elsewhere_arrays_count_as_resident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SMAPS", tmp_path / "absent")
    path = tmp_path / "shell.bin"
    path.write_bytes(b"1" * 1000)
    ledger = read_ledger([path], {"K/V": [np.zeros(MB, np.uint8)], "none": []}, {})
    assert ledger.source == "psutil" and ledger.row("K/V").resident_bytes == MB
    assert ledger.row("shell.bin").resident_bytes == 0
    assert sum(row.resident_bytes for row in ledger.rows) == ledger.resident_bytes


def test_mappings_with_spaces_and_deleted_files() -> None:
    text = (
        "7f00-7f10 r--p 00000000 08:01 123    /a b/shell 0.bin\nSize: 64 kB\nRss: 32 "
        "kB\nAnonymous: 4 kB\n"
        "VmFlags: rd mr\n7f20-7f30 rw-p 00000000 00:00 0 \nSize: 8 kB\nRss: 8 kB\nAnonymous: 8 kB\n"
    )
    first, second = module._read_smaps(text)
    assert (first.path, first.size, first.resident, first.private) == (
        "/a b/shell 0.bin",
        65536,
        32768,
        4096,
    )
    assert (second.path, second.resident) == ("", 8192)
    assert module._read_smaps("") == []
