"""llama.cpp through its own programs: llama-bench for time and memory, llama-perplexity for logits.

llama-bench loads the model once and runs a list of equal tests, one JSON line each. It is stopped
(SIGSTOP) as soon as a line arrives and continued for the next round; its one-second delay between
tests keeps the stop out of the timed part. So its rounds interleave with the other contenders'
without paying for a load each time. Weights: the Q4_0 file with head and PLE table also in Q4_0, on
which it decodes fastest; `llama_cpp_mix` runs llama-quantize's default mix.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..case import Case, Options, Result
from ..processes import drop_from_page_cache, memory_of
from . import Unsupported
from .llama_logits import read_log_probabilities

LONG_PROMPT = 256
"""Prompts from here on are not warmed up: the discarded first round does it in half the time."""


def program(options: Options, name: str) -> str | None:
    if options.llama:
        path = Path(options.llama) / name
        return str(path) if path.is_file() else None
    return shutil.which(name)


def checkpoint(state: State, size: str) -> Path:
    path = state.options.models_path / f"{size}{state.ending}"
    if not path.is_file():
        raise Unsupported(f"no file {path.name}")
    return path


@dataclass
class Bench:
    """One llama-bench process that works through equal tests, stopped between them."""

    arguments: list[str]
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        self.process = subprocess.Popen(
            self.arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def next_test(self) -> dict[str, object]:
        """Continue until the next JSON line, then stop. Raises RuntimeError if the process ends
        without one.
        """
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGCONT)
        line = self.process.stdout.readline()
        if not line:
            _, errors = self.process.communicate(timeout=60)
            raise RuntimeError(
                f"llama-bench ended with {self.process.returncode}: {errors.strip()[-500:]}"
            )
        self.process.send_signal(signal.SIGSTOP)
        test: dict[str, object] = json.loads(line)
        return test

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)


PURE = "-q4_0.gguf"
MIX = "-q4_0-mix.gguf"


@dataclass
class State:
    options: Options
    ending: str = PURE
    """Which of the files of a size is run."""
    case: Case | None = None
    bench: Bench | None = None
    left: int = 0


def available(options: Options, ending: str = PURE) -> tuple[bool, str]:
    if program(options, "llama-bench") is None:
        return False, "no llama-bench (give --llama FOLDER)"
    if not list(options.models_path.glob(f"*{ending}")):
        return False, f"no *{ending} in the models folder"
    return True, ""


def load(options: Options) -> State:
    return State(options)


def command(state: State, case: Case, tests: int) -> list[str]:
    """llama-bench for `tests` repetitions of the case."""
    bench = program(state.options, "llama-bench")
    assert bench is not None
    words = [
        bench,
        "-m",
        str(checkpoint(state, case.size)),
        "-t",
        str(state.options.threads),
        "-o",
        "jsonl",
        "-r",
        "1",
    ]
    prompt, generate = (
        ([case.prompt], [0]) if case.kind in ("prefill", "start") else ([0], [case.generate])
    )
    if prompt[0]:
        words += ["-p", ",".join(map(str, prompt * tests)), "-n", "0"]
    else:
        words += ["-p", "0", "-n", ",".join(map(str, generate * tests))]
    if case.context:
        words += ["-d", str(case.context)]
    if case.kind == "start" or case.prompt >= LONG_PROMPT:
        words.append("--no-warmup")
    if case.kind != "start":
        words += ["--delay", "1"]
    return words


def run(state: State, case: Case) -> Result:
    match case.kind:
        case "prefill" | "decode" | "memory":
            return run_test(state, case)
        case "start":
            return run_start(state, case)
        case "logits":
            return run_logits(state, case)
        case _:
            raise Unsupported(f"llama.cpp has no {case.kind}")


def run_test(state: State, case: Case) -> Result:
    if state.bench is None or state.case != case or state.left == 0:
        close(state)
        state.case, state.left = case, state.options.rounds + 1
        state.bench = Bench(command(state, case, state.left))
    test = state.bench.next_test()
    state.left -= 1
    samples = test["samples_ns"]
    assert isinstance(samples, list)
    resident, peak = memory_of(state.bench.process.pid)
    return Result(
        seconds=samples[0] / 1e9,
        tokens=case.prompt or case.generate,
        resident_bytes=resident,
        peak_bytes=peak,
    )


def run_start(state: State, case: Case) -> Result:
    """A whole process from its start to the logits of the prompt (no tokenising, no sampling)."""
    close(state)
    if case.cold:
        drop_from_page_cache(checkpoint(state, case.size))
    arguments = command(state, case, 1)
    started = time.perf_counter()
    bench = Bench(arguments)
    bench.next_test()
    seconds = time.perf_counter() - started
    resident, peak = memory_of(bench.process.pid)
    bench.close()
    return Result(seconds, 1, resident, peak)


def run_logits(state: State, case: Case) -> Result:
    """Log-probabilities behind `text.txt` beside the target, from llama-perplexity; its ids go to
    `ids.npy`.
    """
    close(state)
    perplexity = program(state.options, "llama-perplexity")
    if perplexity is None:
        raise Unsupported("no llama-perplexity")
    target = Path(case.note)
    base = target.with_suffix(".kld")
    words = [
        perplexity, "-m", str(checkpoint(state, case.size)), "-t", str(state.options.threads),
        "-f", str(target.with_name("text.txt")), "-c", str(case.prompt), "-b", str(case.prompt),
        "--chunks", "1", "--kl-divergence-base", str(base), "--no-warmup",
    ]  # fmt: skip
    started = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0 or not base.exists():
        raise RuntimeError(
            f"llama-perplexity ended with {done.returncode}: {done.stderr.strip()[-500:]}"
        )
    found = read_log_probabilities(base)
    base.unlink()
    found.save(target)
    np.save(target.with_name("ids.npy"), found.ids)
    return Result(time.perf_counter() - started, case.prompt)


def close(state: State) -> None:
    if state.bench is not None:
        state.bench.close()
    state.bench, state.case, state.left = None, None, 0
