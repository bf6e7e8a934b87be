"""A controller under a load that comes and goes: recorded trace and figures.

    python -m benchmarks.elastic_load MODEL cpu --target-ms 340 --busy 4 --out cpu.json
    python -m benchmarks.elastic_load MODEL memory --limit 2GB --out memory.json

One answer is written all the time. In the middle third busy programs run (`cpu`), or a limit of
memory holds (`memory`). Written: every token (when, how long, at which size), every reading, what
was decided and why, and how long time or memory were above their limit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import matryo
from benchmarks.machine import describe
from benchmarks.record import rounded
from matryo.cli.elastic import parse_bytes
from matryo.elastic.controller import Controller
from matryo.elastic.trace import read_trace
from matryo.loading import Model

PROMPT = [2, *range(100, 131)]
SETTLED_S = 2.0  # the time in which a limit has to be kept again


def main() -> None:
    """Run and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("load", choices=("cpu", "memory"))
    parser.add_argument("--target-ms", type=float, default=150.0)
    parser.add_argument("--busy", type=int, default=4)
    parser.add_argument("--limit", default="2GB")
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report = run(matryo.load(options.model), options, Path(directory) / "trace.jsonl")
    report |= {"machine": describe(), "at": time.strftime("%FT%T")}
    options.out.write_text(json.dumps(rounded(report)) + "\n", encoding="utf-8")
    print(json.dumps(report["summary"], indent=1))


def run(model: Model, options: argparse.Namespace, trace: Path) -> dict[str, Any]:
    """One answer of so many seconds; the load is on in the middle third."""
    cpu = options.load == "cpu"
    budget: dict[str, Any] = (
        {"policy": "latency", "target_seconds": options.target_ms / 1e3}
        if cpu
        else {"policy": "memory"}
    )
    controller = model.controller(**budget, trace=trace)
    session = model.session()
    list(session.generate(PROMPT, max_tokens=8))  # weights are in memory
    start, third = time.monotonic(), options.seconds / 3
    busy = _Load(controller, options)
    tokens: list[dict[str, Any]] = []
    try:
        while not tokens or tokens[-1]["at"] < options.seconds:
            before = time.monotonic()
            for event in session.generate(None, max_tokens=1 << 20, controller=controller):
                now = time.monotonic()
                if event.kind == "token":
                    tokens.append({"at": now - start, "seconds": now - before, "size": event.plan})
                    before = now
                busy.set(third <= now - start < 2 * third, now - start)
                if now - start > options.seconds:
                    break
            session.trim(len(PROMPT) + 1)  # the model ended the answer, or the context is full
    finally:
        busy.set(False, options.seconds)
    rules, decisions = read_trace(trace)
    readings = [
        {**one.reading.to_json(), "seconds": one.reading.seconds - start,
         "size": rules.levels[one.setting.level].name, "reason": one.reason}
        for one in decisions
    ]  # fmt: skip
    limit = options.target_ms / 1e3 if cpu else parse_bytes(options.limit)
    return {
        "load": options.load,
        "model": model.name,
        "limit": limit,
        "busy_programs": options.busy if cpu else 0,
        "on": busy.on,
        "off": busy.off,
        "tokens": tokens,
        "readings": readings,
        "summary": summary(tokens, readings, limit, busy.on, busy.off, cpu=cpu),
    }


class _Load:
    """Busy programs, or a limit of memory, that can be switched on and off."""

    def __init__(self, controller: Controller, options: argparse.Namespace) -> None:
        self.on = self.off = float("inf")
        self._controller, self._options = controller, options
        self._programs: list[subprocess.Popen[bytes]] = []
        self._is_on = False

    def set(self, wanted: bool, now: float) -> None:
        """Switch; `now`: seconds since the beginning."""
        if wanted == self._is_on:
            return
        self._is_on = wanted
        if self._options.load == "memory":
            self._controller.memory_limit = parse_bytes(self._options.limit) if wanted else None
        elif wanted:
            code = [sys.executable, "-c", "while True: pass"]
            self._programs = [subprocess.Popen(code) for _ in range(self._options.busy)]
        else:
            for program in self._programs:
                program.kill()
                program.wait()
        if wanted:
            self.on = now
        else:
            self.off = now


def summary(
    tokens: list[dict[str, Any]],
    readings: list[dict[str, Any]],
    limit: float,
    on: float,
    off: float,
    *,
    cpu: bool,
) -> dict[str, Any]:
    """How fast the limit was kept again, and the full size came back.

    Time is that of the median of five tokens: what the policy keeps.
    """
    largest = readings[0]["size"] if readings else ""
    if cpu:
        values = [
            (one["at"], median([t["seconds"] for t in tokens[max(0, i - 4) : i + 1]]))
            for i, one in enumerate(tokens)
        ]
    else:
        values = [(one["seconds"], one["resident_bytes"]) for one in readings]
    over = [at for at, value in values if value > limit and on <= at < off]
    settled = [value for at, value in values if on + SETTLED_S <= at < off]
    back = [one["at"] for one in tokens if one["at"] > off and one["size"] == largest]
    return {
        "tokens": len(tokens),
        "longest_pause_s": max(one["seconds"] for one in tokens),
        "last_above_the_limit_s_after_the_load_began": max(over, default=on) - on,
        "share_of_values_below_the_limit_2_s_after": (
            sum(value <= limit for value in settled) / len(settled) if settled else None
        ),
        "largest_size_again_s_after_the_load_ended": min(back, default=float("inf")) - off,
        "changes": [
            [round(one["seconds"], 2), one["size"], one["reason"]]
            for one in readings
            if one["reason"]
        ],
    }


if __name__ == "__main__":
    main()
