"""The whole measurement behind docs/benchmarks.md, as steps that can be continued.

In: options, a time budget. Out: one result file a step, then the pages. A step that already has a
result of the checked-out commit is left out, so a run that was interrupted, or whose budget ended,
goes on where it was. What needs a quiet machine comes first, in the order of importance; memory and
agreement do not depend on the speed and come last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import agreement, contention, encoder_agreement, encoder_steps, machine, record
from .case import Options
from .driver import Refused
from .runner import run_suite, say
from .step import Step
from .suites import training

OURS, PURE, MIX, HF, OPENVINO = (
    "ours", "llama_cpp", "llama_cpp_mix", "transformers_cpu", "openvino_genai",
)  # fmt: skip


STEPS = (
    Step("decode-e2b", "decode", ("e2b",), (OURS, PURE, MIX, HF, OPENVINO), 5, 330, "at 512"),
    Step("decode-e4b", "decode", ("e4b",), (OURS, PURE), 5, 340, "at 512"),
    Step("prefill-e2b", "prefill", ("e2b",), (OURS, PURE, MIX, HF, OPENVINO), 3, 320, "l 512"),
    Step("prefill-e4b", "prefill", ("e4b",), (OURS, PURE), 2, 250, "l 512"),
    Step("load-e2b", "load", ("e2b",), (OURS, PURE), 3, 90),
    Step("elastic", "elastic", ("e2b", "e4b"), (OURS,), 3, 60),
    Step("load-e4b", "load", ("e4b",), (OURS, PURE), 2, 130),
    Step("kernels", "kernels", (), (OURS,), 3, 90),
    Step("ttft-e2b", "ttft", ("e2b",), (OURS, PURE), 3, 80),
    Step("prefill-e2b-2048", "prefill", ("e2b",), (OURS, PURE), 1, 360, "l 2048"),
    Step("ttft-e4b", "ttft", ("e4b",), (OURS, PURE), 2, 120),
    Step("decode-e2b-8192", "decode", ("e2b",), (OURS, PURE), 3, 1000, "at 8192"),
    Step("prefill-e4b-2048", "prefill", ("e4b",), (OURS, PURE), 1, 700, "l 2048"),
    Step("decode-e4b-8192", "decode", ("e4b",), (OURS, PURE), 3, 1900, "at 8192"),
    Step("training-one", "training", (), training.CONTENDERS, 5, 90, "one"),
    Step("training-two", "training", (), training.CONTENDERS, 4, 120, "two"),
    Step("memory-e2b", "memory", ("e2b",), (OURS, PURE, MIX, HF), 1, 700, quiet=False),
    Step("memory-e4b", "memory", ("e4b",), (OURS, PURE), 1, 600, quiet=False),
    Step("agreement-e2b", "agreement", ("e2b",), (OURS, PURE), 1, 400, quiet=False),
    *encoder_steps.STEPS,
)
AGREEMENTS: Mapping[str, Any] = {
    "agreement": agreement,
    "encoder_agreement": encoder_agreement,
}


def measure(step: Step, options: Options, results: Path) -> None:
    """Do one step and save its result. Raises Refused if an agreement's reference cannot run."""
    chosen = replace(options, rounds=step.rounds)
    if step.suite in AGREEMENTS:
        AGREEMENTS[step.suite].measure(step.sizes, step.contenders, chosen, results, step.name)
    else:
        run_suite(step.suite, step.sizes, step.contenders, chosen, step.only, results, step.name)


def finished(results: Path, commit: str) -> set[str]:
    """Steps that have a result of this commit."""
    return {
        str(document.get("step"))
        for document in record.documents(results)
        if document["machine"]["commit"] == commit
    }


def selected(names: Sequence[str], part: str) -> list[Step]:
    """part: quiet (times), any (not times) or all. Raises ValueError for unknown names."""
    unknown = set(names) - {step.name for step in STEPS}
    if unknown:
        known = ", ".join(step.name for step in STEPS)
        raise ValueError(f"no step {', '.join(sorted(unknown))}; there are: {known}")
    return [
        step
        for step in STEPS
        if (not names or step.name in names) and (part == "all" or step.quiet == (part == "quiet"))
    ]


def run(
    steps: Iterable[Step],
    options: Options,
    results: Path,
    minutes: float,
    again: bool,
    do: Callable[[Step, Options, Path], None] = measure,
) -> dict[str, str]:
    """Step name -> `measured`, `kept`, `no time` or the reason of a failure.

    minutes: a step that would probably end later than this is not begun; 0 = no limit.
    """
    commit = machine.commit()
    kept = set() if again else finished(results, commit)
    end = time.monotonic() + 60 * minutes
    outcome: dict[str, str] = {}
    for step in steps:
        if step.name in kept:
            outcome[step.name] = "kept"
        elif minutes and time.monotonic() + step.seconds > end:
            outcome[step.name] = "no time"
        else:
            say(
                f"== {step.name}, about {step.seconds} s; {others_now():.0%} of the machine is busy"
            )
            started = time.monotonic()
            try:
                do(step, options, results)
                outcome[step.name] = "measured"
            except (Refused, OSError, RuntimeError) as error:
                outcome[step.name] = f"{type(error).__name__}: {error}"
            say(f"== {step.name}: {outcome[step.name]}, {time.monotonic() - started:.0f} s")
    return outcome


def others_now() -> float:
    """Share of the machine that other processes use during half a second."""
    before = contention.sample()
    time.sleep(0.5)
    return contention.share_of_others(before, contention.sample())
