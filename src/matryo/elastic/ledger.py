"""Where every byte of this process lives, as the operating system tells it.

In: the model's files and the arrays whose owners we know (K/V pages, weights that were packed in
memory). Out: a `Ledger`.
On Linux the figures come from /proc/self/smaps (resident bytes of each mapping) and
/proc/self/pagemap (which pages of an array are present); elsewhere psutil gives the total and
arrays count as resident.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)$")
_PRESENT = np.uint64(1 << 63)
_SMAPS = Path("/proc/self/smaps")
_PAGEMAP = Path("/proc/self/pagemap")


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One place: `kind` is mapped (read from a file, given back under pressure) or private (this
    process alone).

    total_bytes: of the file or the arrays · resident_bytes: of these now in this process's memory
    """

    name: str
    kind: str
    total_bytes: int
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """All rows; their resident bytes add up to `resident_bytes`, those of the process."""

    rows: tuple[LedgerRow, ...]
    resident_bytes: int
    source: str

    def row(self, name: str) -> LedgerRow:
        """The row of a name. Raises KeyError if there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Mapping:
    path: str
    size: int
    resident: int
    private: int
    """Resident anonymous bytes: private memory, also in written parts of a file's mapping."""


def read_ledger(
    files: Iterable[Path],
    arrays: Mapping[str, Iterable[npt.NDArray[Any]]],
    buffers: Mapping[str, int],
) -> Ledger:
    """Read the ledger of this process.

    files: one row each, mapped · arrays: name of a row -> the arrays in it, private memory of this
    process
    buffers: name of a row -> bytes in use that their owner has counted, all of them touched
    """
    paths = [path.resolve() for path in files]
    groups = {name: list(group) for name, group in arrays.items()}
    counted = [LedgerRow(name, "private", size, size) for name, size in buffers.items()]
    if _SMAPS.exists() and _PAGEMAP.exists():
        return _read_linux(paths, groups, counted)
    return _read_portable(paths, groups, counted)


_Arrays = Mapping[str, list[npt.NDArray[Any]]]


def _read_linux(files: list[Path], arrays: _Arrays, counted: list[LedgerRow]) -> Ledger:
    private_rows = counted + [_array_row(name, group) for name, group in arrays.items() if group]
    mappings = _read_smaps(_SMAPS.read_text(encoding="utf-8", errors="surrogateescape"))
    rows = [_file_row(path, mappings) for path in files]
    ours = {str(path) for path in files}
    others = [mapping for mapping in mappings if mapping.path not in ours]
    private = sum(mapping.private for mapping in others)
    shared = [mapping for mapping in others if mapping.path.startswith("/")]
    known = sum(row.resident_bytes for row in private_rows)
    rest = max(private - known, 0)
    rows += private_rows
    rows.append(LedgerRow("scratch and Python", "private", rest, rest))
    rows.append(
        LedgerRow(
            "programs and libraries",
            "mapped",
            sum(mapping.size for mapping in shared),
            sum(mapping.resident - mapping.private for mapping in others),
        )
    )
    return Ledger(tuple(rows), sum(mapping.resident for mapping in mappings), "/proc/self/smaps")


def _file_row(path: Path, mappings: list[_Mapping]) -> LedgerRow:
    resident = sum(mapping.resident for mapping in mappings if mapping.path == str(path))
    return LedgerRow(path.name, "mapped", path.stat().st_size, resident)


def _array_row(name: str, arrays: list[npt.NDArray[Any]]) -> LedgerRow:
    return LedgerRow(
        name, "private", sum(array.nbytes for array in arrays), _resident_bytes(arrays)
    )


def _resident_bytes(arrays: list[npt.NDArray[Any]]) -> int:
    """Bytes of the arrays that lie in present pages; a page is counted by the part of it that they
    cover.
    """
    page = mmap.PAGESIZE
    resident = 0
    with _PAGEMAP.open("rb", buffering=0) as pagemap:
        for array in arrays:
            start, end = array.ctypes.data, array.ctypes.data + array.nbytes
            first, last = start // page, -(-end // page)
            if last == first:
                continue
            pagemap.seek(first * 8)
            present = np.frombuffer(pagemap.read((last - first) * 8), np.uint64) & _PRESENT != 0
            covered = np.full(len(present), page)
            covered[0] -= start - first * page
            covered[-1] -= last * page - end
            resident += int(covered[present].sum())
    return resident


def _read_smaps(text: str) -> list[_Mapping]:
    mappings: list[_Mapping] = []
    path = ""
    sizes: dict[str, int] = {}
    for line in text.splitlines():
        if match := _MAPPING.match(line):
            if sizes:
                mappings.append(_mapping(path, sizes))
            path, sizes = match.group(1), {}
        else:
            key, _, value = line.partition(":")
            if value.endswith(" kB"):
                sizes[key] = int(value[:-3]) * 1024
    if sizes:
        mappings.append(_mapping(path, sizes))
    return mappings


def _mapping(path: str, sizes: dict[str, int]) -> _Mapping:
    return _Mapping(path, sizes.get("Size", 0), sizes.get("Rss", 0), sizes.get("Anonymous", 0))


def _read_portable(files: list[Path], arrays: _Arrays, counted: list[LedgerRow]) -> Ledger:
    import psutil

    resident = int(psutil.Process().memory_info().rss)
    sizes = {name: sum(array.nbytes for array in group) for name, group in arrays.items() if group}
    private = counted + [LedgerRow(name, "private", size, size) for name, size in sizes.items()]
    # Without smaps nobody knows which pages of a file are resident: they are part of the last row.
    rows = [LedgerRow(path.name, "mapped", path.stat().st_size, 0) for path in files]
    rest = max(resident - sum(row.resident_bytes for row in private), 0)
    rest_row = LedgerRow("everything else", "private", rest, rest)
    return Ledger((*rows, *private, rest_row), resident, "psutil")
