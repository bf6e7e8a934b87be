"""Runs contenders beside each other: one process each, rounds interleaved, the state of the machine
noted every time.

In: contender names, a case, a number of rounds. Out: a list of `Measurement`, in time order; round
0 is discarded by whoever reads them. Before and after each repetition the read bandwidth is
measured, and the share of processor time that other processes took during it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import contenders, contention
from .bandwidth import Probe
from .case import Case, Options, Result

CLOSING_SECONDS = 20


class Refused(Exception):
    """The contender cannot do the case, or failed at it; carries the reason."""


class Worker:
    """A contender's process."""

    def __init__(self, name: str, options: Options) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name, json.dumps(asdict(options))],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, case: Case) -> Result:
        """One repetition. Raises Refused with the contender's own words."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(asdict(case)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Refused(f"{self.name}'s process has ended") from None
        line = self.process.stdout.readline()
        if not line:
            raise Refused(f"{self.name}'s process ended with {self.process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "result" not in reply:
            raise Refused(reply.get("unsupported") or reply.get("error") or "no answer")
        return Result(**reply["result"])

    def close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=CLOSING_SECONDS)
        # Its programs too, which go on by themselves if it had no time to end them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class Measurement:
    """One repetition of one contender and what the machine was doing."""

    round: int
    contender: str
    result: Result
    bandwidth_before: float
    bandwidth_after: float
    others: float
    """Share of all processor time used by other processes, 0 to 1."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def availability(names: Sequence[str], options: Options) -> dict[str, str]:
    """Reason why each contender cannot run; empty = it can."""
    reasons = {}
    for name in names:
        contender, chosen = contenders.of(name, options)
        can, reason = contender.available(chosen)
        reasons[name] = "" if can else reason
    return reasons


def interleave(
    workers: Sequence[Worker],
    case: Case,
    rounds: int,
    probe: Probe,
    most: Mapping[str, int],
    dropped: dict[str, str],
) -> Iterator[Measurement]:
    """Rounds 0..`rounds` of A B ... A B ...

    most: the last round of contenders that are too slow for all of them. dropped: gets the reason
    of each contender that cannot go on.
    """
    for index in range(rounds + 1):
        for worker in workers:
            if worker.name in dropped or index > most.get(worker.name, rounds):
                continue
            before = probe.measure()
            start = contention.sample()
            try:
                result = worker.run(case)
            except Refused as reason:
                dropped[worker.name] = str(reason)
                continue
            share = contention.share_of_others(start, contention.sample())
            yield Measurement(index, worker.name, result, before, probe.measure(), share)
