"""How much of the machine other processes took while something was measured, from /proc.

In: two samples. Out: the share of all processor time between them that was neither idle nor ours (0
to 1). Ours = the calling process and everything below it, finished children included. Time stolen
by the hypervisor counts as others'.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """Clock ticks since boot: all of the machine, the part that was not idle, and the part that was
    ours.
    """

    total: int
    busy: int
    own: int


def parse_machine(stat: str) -> tuple[int, int]:
    """(total, busy) ticks from the text of /proc/stat."""
    fields = [int(value) for value in stat.split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields), sum(fields) - idle


def parse_process(stat: str) -> tuple[int, int]:
    """(parent id, ticks of the process and its finished children) from a /proc/PID/stat."""
    fields = stat.rsplit(")", 1)[1].split()
    return int(fields[1]), sum(int(value) for value in fields[11:15])


def own_ticks(root: int) -> int:
    """Ticks used by the process `root` and its descendants."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parents[int(entry.name)], ticks[int(entry.name)] = parse_process(
                (entry / "stat").read_text()
            )
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
    total = 0
    for process in ticks:
        ancestor = process
        while ancestor not in (root, 0):
            ancestor = parents.get(ancestor, 0)
        if ancestor == root:
            total += ticks[process]
    return total


def sample() -> Sample:
    total, busy = parse_machine(Path("/proc/stat").read_text())
    return Sample(total, busy, own_ticks(os.getpid()))


def share_of_others(before: Sample, after: Sample) -> float:
    """Share of the processor time between two samples that others used."""
    total = after.total - before.total
    if total <= 0:
        return 0.0
    others = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, others / total)
