"""`python -m benchmarks run --suite decode --models DIRECTORY`, `... agree`, `... report`.

Tables and progress go to standard error; the last line on standard output is one JSON document.
Results are written to `benchmarks/results/`, from which `report` makes `docs/benchmarks.md` and its
picture.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import agreement, record, report, suites
from .bandwidth import Probe
from .case import Case, Options
from .contenders import NAMES
from .driver import Measurement, Worker, availability, interleave


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(measurement: Measurement) -> None:
    result = measurement.result
    say(
        f"  round {measurement.round} {measurement.contender:16} {result.rate:9.2f}/s {result.seconds:8.3f} s  "
        f"read {measurement.bandwidth_before:4.1f} {measurement.bandwidth_after:4.1f} GB/s  "
        f"others {measurement.others:5.1%}  resident {result.resident_bytes / 1e9:5.2f} GB"
    )


def run_cases(
    cases: Sequence[Case], names: Sequence[str], options: Options, fresh: bool, probe: Probe
) -> list[dict[str, object]]:
    """Every case with every contender; workers live through all cases unless `fresh`."""
    records: list[dict[str, object]] = []
    workers: list[Worker] = []
    try:
        for case in cases:
            say(case.title)
            if fresh or not workers:
                for worker in workers:
                    worker.close()
                workers = [Worker(name, options) for name in names]
            measurements, dropped = interleave(workers, case, options.rounds, probe, show)
            for name, reason in dropped.items():
                say(f"  {name}: {reason}")
            records.append(record.of_case(case, measurements, dropped))
    finally:
        for worker in workers:
            worker.close()
    return records


def run(chosen: argparse.Namespace) -> dict[str, object]:
    suite: Any = importlib.import_module(f"benchmarks.suites.{chosen.suite}")
    options = options_from(chosen, chosen.rounds or suite.ROUNDS)
    wanted = [
        name for name in suite.CONTENDERS if not chosen.contenders or name in chosen.contenders
    ]
    reasons = availability(wanted, options)
    for name in (name for name in wanted if reasons[name]):
        say(f"{name} is not available: {reasons[name]}")
    cases = [case for case in suite.cases(chosen.sizes) if chosen.only in case.title]
    able = [name for name in wanted if not reasons[name]]
    records = run_cases(cases, able, options, suite.FRESH, Probe(options.threads))
    return record.save(
        chosen.suite, options, {n: r for n, r in reasons.items() if r}, records, chosen.results
    )


def agree(chosen: argparse.Namespace) -> dict[str, object]:
    options = options_from(chosen, 1)
    wanted = chosen.contenders or ["ours", "llama_cpp"]
    records: list[dict[str, object]] = []
    for size in chosen.sizes:
        found = agreement.check(size, wanted, options, lambda one: say(f"{size} {one.to_json()}"))
        records.append({"size": size, "agreement": [one.to_json() for one in found]})
    return record.save("agreement", options, {}, records, chosen.results)


def options_from(chosen: argparse.Namespace, rounds: int) -> Options:
    return Options(chosen.models, chosen.threads, rounds, chosen.weights, chosen.ours, chosen.llama)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for name, help_text in (("run", "time one suite"), ("agree", "compare probabilities")):
        command = commands.add_parser(name, help=help_text)
        command.add_argument(
            "--models", default="", help="folder with {e2b,e4b}-hf, -q4_0.gguf, e4b-q4"
        )
        command.add_argument(
            "--ours", default="", help="our checkpoint, if not in the models folder"
        )
        command.add_argument("--llama", default="", help="folder with llama-bench")
        command.add_argument("--sizes", nargs="+", default=["e2b", "e4b"])
        command.add_argument("--contenders", nargs="+", choices=NAMES)
        command.add_argument("--threads", type=int, default=2)
        command.add_argument(
            "--results", type=Path, default=record.RESULTS, help="folder for the result file"
        )
        command.add_argument("--weights", default="q4", help="kind of our packed weights")
        if name == "run":
            command.add_argument("--suite", required=True, choices=suites.NAMES)
            command.add_argument(
                "--rounds", type=int, default=0, help="after one that is discarded; 0 = the suite's"
            )
            command.add_argument("--only", default="", help="only cases whose title contains this")
    commands.add_parser("report", help="generate docs/benchmarks.md and its picture")
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = parser().parse_args(arguments)
    match chosen.command:
        case "run":
            print(json.dumps(run(chosen)))
        case "agree":
            print(json.dumps(agree(chosen)))
        case "report":
            print(json.dumps({"written": [str(path) for path in report.write()]}))


if __name__ == "__main__":
    main()
