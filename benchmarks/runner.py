"""One suite from beginning to end: workers, rounds, the result file.

In: a suite's name, sizes, contenders, options. Out: the saved document. Progress goes to standard
error.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import record
from .bandwidth import Probe
from .case import Case, Options
from .driver import Measurement, Worker, availability, interleave


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(measurement: Measurement) -> None:
    result = measurement.result
    say(
        f"  round {measurement.round} {measurement.contender:16} "
        f"{result.rate:9.2f}/s {result.seconds:8.3f} s  "
        f"read {measurement.bandwidth_before:4.1f} {measurement.bandwidth_after:4.1f} GB/s  "
        f"others {measurement.others:5.1%}  resident {result.resident_bytes / 1e9:5.2f} GB"
    )


def run_cases(
    cases: Sequence[Case],
    names: Sequence[str],
    options: Options,
    fresh: bool,
    most: Mapping[str, int],
    probe: Probe,
) -> list[dict[str, object]]:
    """Every case with every contender; workers live through all cases unless `fresh`.

    An interrupt ends the suite, but not without what was measured until then.
    """
    records: list[dict[str, object]] = []
    workers: list[Worker] = []
    try:
        for case in cases:
            say(case.title)
            if fresh or not workers:
                for worker in workers:
                    worker.close()
                workers = [Worker(name, options) for name in names]
            measurements: list[Measurement] = []
            dropped: dict[str, str] = {}
            try:
                for one in interleave(workers, case, options.rounds, probe, most, dropped):
                    show(one)
                    measurements.append(one)
            except KeyboardInterrupt:
                say("  interrupted: what was measured is kept")
                return [*records, record.of_case(case, measurements, dropped)]
            for name, reason in dropped.items():
                say(f"  {name}: {reason}")
            records.append(record.of_case(case, measurements, dropped))
    finally:
        for worker in workers:
            worker.close()
    return records


def run_suite(
    name: str,
    sizes: Sequence[str],
    contenders: Sequence[str],
    options: Options,
    only: str = "",
    results: Path = record.RESULTS,
    step: str = "",
) -> dict[str, object]:
    """Measure the cases of a suite whose title contains `only`, save and return the document.

    contenders: those of the suite that take part; none = all. step: noted in the document.
    """
    suite: Any = importlib.import_module(f"benchmarks.suites.{name}")
    wanted = [one for one in suite.CONTENDERS if not contenders or one in contenders]
    reasons = availability(wanted, options)
    absent = {one: reason for one, reason in reasons.items() if reason}
    for one, reason in absent.items():
        say(f"{one} is not available: {reason}")
    cases = [case for case in suite.cases(sizes) if only in case.title]
    able = [one for one in wanted if one not in absent]
    records = run_cases(cases, able, options, suite.FRESH, suite.MOST, Probe(options.threads))
    return record.save(name, options, absent, records, results, step)
