"""`python -m benchmarks all --models DIRECTORY --llama FOLDER` measures and writes it
all.

Parts: `... run --suite decode`, `... agree`, `... quality`, `... report`. Progress goes to standard
error; the last line on standard output is one JSON document. Results are written to
`benchmarks/results/`, from which `report` makes `docs/benchmarks.md`, pictures and tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import agreement, everything, quality, record, report, suites
from .case import Options
from .contenders import NAMES
from .runner import run_suite


def run(chosen: argparse.Namespace) -> dict[str, object]:
    suite: Any = importlib.import_module(f"benchmarks.suites.{chosen.suite}")
    options = options_from(chosen, chosen.rounds or suite.ROUNDS)
    return run_suite(
        chosen.suite, chosen.sizes, chosen.contenders or (), options, chosen.only, chosen.results
    )


def agree(chosen: argparse.Namespace) -> dict[str, object]:
    wanted = chosen.contenders or ["ours", "llama_cpp"]
    return agreement.measure(chosen.sizes, wanted, options_from(chosen, 1), chosen.results)


def all_steps(chosen: argparse.Namespace) -> dict[str, object]:
    steps = everything.selected(chosen.steps, chosen.part)
    if chosen.quick:
        steps = [dataclasses.replace(step, rounds=1) for step in steps]
    options = options_from(chosen, 1)
    outcome = everything.run(steps, options, chosen.results, chosen.minutes, chosen.again)
    written = write_pages() if chosen.results == record.RESULTS else []
    return {"steps": outcome, "written": written}


def measure_quality(chosen: argparse.Namespace) -> dict[str, object]:
    options = Options(models="", threads=chosen.threads)
    return quality.measure(
        chosen.trained, chosen.heldout, options, chosen.scratch, chosen.results, chosen.characters
    )


def write_pages() -> list[str]:
    return [str(path) for path in (*report.write(), *report.write_others())]


def options_from(chosen: argparse.Namespace, rounds: int) -> Options:
    return Options(
        models=chosen.models,
        threads=chosen.threads,
        rounds=rounds,
        weights=chosen.weights,
        ours=chosen.ours,
        llama=chosen.llama,
        llama_version=chosen.llama_version,
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for name, help_text in (
        ("all", "everything, in steps that can be continued"),
        ("run", "time one suite"),
        ("agree", "compare probabilities"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument(
            "--models", default="", help="folder with {e2b,e4b}-hf, -q4_0.gguf, e4b-q4"
        )
        command.add_argument(
            "--ours", default="", help="our checkpoint, if not in the models folder"
        )
        command.add_argument("--llama", default="", help="folder with llama-bench")
        command.add_argument("--llama-version", default="", help="noted in the report")
        if name != "all":
            command.add_argument("--sizes", nargs="+", default=["e2b", "e4b"])
            command.add_argument("--contenders", nargs="+", choices=NAMES)
        command.add_argument("--threads", type=int, default=2)
        command.add_argument(
            "--results", type=Path, default=record.RESULTS, help="folder for the result file"
        )
        command.add_argument("--weights", default="q4", help="kind of our packed weights")
        if name == "all":
            command.add_argument("--steps", nargs="+", default=[], help="only these")
            command.add_argument("--part", choices=("all", "quiet", "any"), default="all",
                                 help="quiet: what measures times; any: the rest")  # fmt: skip
            command.add_argument("--minutes", type=float, default=0, help="budget; 0 = none")
            command.add_argument("--again", action="store_true", help="also what has results")
            command.add_argument("--quick", action="store_true", help="one round: does it work?")
        if name == "run":
            command.add_argument("--suite", required=True, choices=suites.NAMES)
            command.add_argument(
                "--rounds", type=int, default=0, help="after one that is discarded; 0 = the suite's"
            )
            command.add_argument("--only", default="", help="only cases whose title contains this")
    command = commands.add_parser("quality", help="what quantisation costs")
    command.add_argument("--trained", type=Path, help="Hugging Face directory with plans.json")
    command.add_argument("--heldout", type=Path, help="its held-out texts, JSON lines")
    command.add_argument("--characters", type=int, default=60_000, help="of the texts")
    command.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--results", type=Path, default=record.RESULTS)
    commands.add_parser("report", help="generate docs/benchmarks.md and its picture")
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    match chosen.command:
        case "all":
            print(json.dumps(all_steps(chosen)))
        case "run":
            print(json.dumps(run(chosen)))
        case "agree":
            print(json.dumps(agree(chosen)))
        case "quality":
            print(json.dumps(measure_quality(chosen)))
        case "report":
            print(json.dumps({"written": write_pages()}))


if __name__ == "__main__":
    main()
