"""Matryo through its public interface: `matryo.load`, sessions, plans; single products through
`matryo.kernels`.

Every size comes from one checkpoint if `e4b-q4` (packed) is there, as users run it. A decode round
forks a prefilled session, so that each round starts behind the same context.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..case import Case, Options, Result
from ..needed import needed_bytes
from ..processes import drop_from_page_cache, memory_of
from . import Unsupported, our_kernels

FIRST_ID = 200
"""Random prompts begin after the special tokens."""


@dataclass
class State:
    options: Options
    models: dict[Path, Any] = field(default_factory=dict)
    context: Any = None
    """Session behind `context` tokens, forked for each repetition."""
    context_case: Case | None = None
    products: dict[str, our_kernels.Product] = field(default_factory=dict)
    resident: dict[str, float] = field(default_factory=dict)
    """Size -> resident GB when it was first used, smaller ones before it."""


def candidates(options: Options, size: str) -> list[Path]:
    """Where our checkpoint of a size may be, best first."""
    if options.ours:
        return [Path(options.ours)]
    folder = options.models_path
    kind = options.weights
    return [
        folder / f"e4b-{kind}",
        folder / f"{size}-{kind}",
        folder / f"{size}-hf",
        folder / "e4b-hf",
    ]


def checkpoint(options: Options, size: str) -> Path:
    for path in candidates(options, size):
        if path.exists():
            return path
    raise Unsupported(f"none of {', '.join(path.name for path in candidates(options, size))}")


def available(options: Options) -> tuple[bool, str]:
    if importlib.util.find_spec("matryo") is None:
        return False, "matryo is not installed"
    return True, ""


def load(options: Options) -> State:
    return State(options)


def model_of(state: State, size: str) -> Any:
    """The open model, opened at its first use."""
    import matryo

    path = checkpoint(state.options, size)
    if path not in state.models:
        state.models[path] = matryo.load(
            path, weights=state.options.weights, threads=state.options.threads
        )
    return state.models[path]


def random_ids(count: int, limit: int) -> list[int]:
    generator = np.random.default_rng(count)
    first = min(FIRST_ID, limit // 2)
    return [int(token) for token in generator.integers(first, limit, count)]


def prompt(model: Any, count: int) -> list[int]:
    return random_ids(count, model.config.ple_vocab_size)


def run(state: State, case: Case) -> Result:
    match case.kind:
        case "prefill":
            return prefill(state, case)
        case "decode" | "memory":
            return decode(state, case)
        case "start":
            return start(state, case)
        case "switch":
            return switch(state, case)
        case "sizes":
            return sizes(state, case)
        case "logits":
            return logits(state, case)
        case "kernel":
            return our_kernels.run(state.products, case, state.options.threads)
        case _:
            raise Unsupported(f"{case.kind} is for the encoders")


def result(seconds: float, tokens: int, **details: float | str) -> Result:
    resident, peak = memory_of(os.getpid())
    return Result(seconds, tokens, resident, peak, details)


def prefill(state: State, case: Case) -> Result:
    """An empty session until the first token behind the prompt is there."""
    import matryo

    model = model_of(state, case.size)
    ids = prompt(model, case.prompt)
    session = model.session(plan=case.size)
    started = time.perf_counter()
    next(session.generate(ids, max_tokens=1, sampling=matryo.GREEDY))
    return result(time.perf_counter() - started, case.prompt)


def behind(state: State, case: Case) -> Any:
    """A fork of a session with `context` cached tokens and one more that waits to be run."""
    if state.context_case != case:
        model = model_of(state, case.size)
        state.context = model.session(plan=case.size)
        state.context.prefill(prompt(model, case.context + 1))
        state.context_case = case
    return state.context.fork()


def timed_tokens(session: Any, count: int) -> list[float]:
    """Seconds for each of `count` tokens, sampling and text included."""
    import matryo

    times = [time.perf_counter()]
    for event in session.generate(None, max_tokens=count, sampling=matryo.GREEDY):
        if event.kind == "token":
            times.append(time.perf_counter())
    if len(times) < 2:
        raise RuntimeError("the first token was an end token: take another seed")
    return [after - before for before, after in pairwise(times)]


def decode(state: State, case: Case) -> Result:
    seconds = timed_tokens(behind(state, case), case.generate)
    model = model_of(state, case.size)
    needed = needed_bytes(model, case.size, case.context + case.generate // 2)
    return result(
        sum(seconds),
        len(seconds),
        needed_bytes=float(needed),
        median_token=float(np.median(seconds)),
    )


def start(state: State, case: Case) -> Result:
    """A whole process from its start to the first token."""
    path = checkpoint(state.options, case.size)
    if case.cold:
        drop_from_page_cache(path)
    request = {
        "path": str(path),
        "weights": state.options.weights,
        "threads": state.options.threads,
        "plan": case.size,
        "prompt": case.prompt,
    }
    words = [sys.executable, "-m", "benchmarks.first_token", json.dumps(request)]
    started = time.perf_counter()
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    seconds = time.perf_counter() - started
    if not line:
        raise RuntimeError(f"the process ended with {process.wait(timeout=60)} before a token came")
    resident, peak = memory_of(process.pid)
    process.communicate(timeout=60)
    inside: dict[str, float] = json.loads(line)
    return Result(seconds, 1, resident, peak, dict(inside))


def switch(state: State, case: Case) -> Result:
    """Decode at one size, change to the other, decode on, and back; all in one session."""
    small, large = "e2b", "e4b"
    session = behind(state, Case("switch", small, context=case.context))
    before, _ = memory_of(os.getpid())
    figures: dict[str, list[float]] = {}
    assignments: list[float] = []
    extra: list[float] = []
    for name in (small, large, small, large):
        started = time.perf_counter()
        session.plan = name
        assignments.append(time.perf_counter() - started)
        seconds = timed_tokens(session, case.generate)
        extra.append(seconds[0] - float(np.median(seconds[1:])))
        figures.setdefault(name, []).extend(seconds[1:])
    after, _ = memory_of(os.getpid())
    return result(
        max(assignments[1:]),
        0,
        switch_microseconds=1e6 * max(assignments[1:]),
        first_token_extra_milliseconds=1e3 * float(np.median(extra[2:])),
        **{
            f"{name}_tokens_per_second": float(1 / np.median(values))
            for name, values in figures.items()
        },
        resident_GB_small_only=before / 1e9,
        resident_GB_both=after / 1e9,
    )


def plans_between(model: Any) -> dict[str, Any]:
    """Plans from the smallest to the largest: wider networks first, then the skipped layers."""
    import matryo

    small, large = model.plan("e2b"), model.plan("e4b")
    narrow, wide = small.ffn_width[0], large.ffn_width[0]
    chosen = {"e2b": small}
    for layers, width in (
        (small.layers, (3 * narrow + wide) // 4),
        (small.layers, (narrow + wide) // 2),
        (large.layers, (narrow + wide) // 2),
        (large.layers, (narrow + 3 * wide) // 4),
    ):
        plan = matryo.Plan(layers, (width,) * len(layers), large.num_owners)
        chosen[f"{len(layers)} x {width}"] = plan
    return {**chosen, "e4b": large}


def sizes(state: State, case: Case) -> Result:
    """Tokens a second and resident bytes, size by size, in one session of one process."""
    model = model_of(state, case.size)
    session = behind(state, Case("sizes", "e2b", context=case.context))
    details: dict[str, float | str] = {}
    total = tokens = 0.0
    for name, plan in plans_between(model).items():
        session.plan = plan
        timed_tokens(session, 2)
        seconds = timed_tokens(session, case.generate)
        total, tokens = total + sum(seconds), tokens + len(seconds)
        details[f"{name}: tokens/s"] = float(1 / np.median(seconds))
        details[f"{name}: MB/token"] = needed_bytes(model, plan, case.context) / 1e6
        # Pages that a larger size brought in stay: only the first pass shows what each needs.
        now = memory_of(os.getpid())[0] / 1e9
        details[f"{name}: resident GB"] = state.resident.setdefault(name, now)
    return result(total, int(tokens), **details)


def logits(state: State, case: Case) -> Result:
    """Log-probabilities of the second half of `ids.npy` beside the target."""
    target = Path(case.note)
    ids = np.load(target.with_name("ids.npy"))
    model = model_of(state, case.size)
    started = time.perf_counter()
    rows = np.asarray(
        model.logits([int(i) for i in ids], plan=case.size, positions="all"), dtype=np.float32
    )
    seconds = time.perf_counter() - started
    first = len(ids) // 2
    values = rows[first : len(ids) - 1].astype(np.float64)
    values -= values.max(1, keepdims=True)
    values -= np.log(np.exp(values).sum(1, keepdims=True))
    np.savez(target, ids=ids, first=first, values=values.astype(np.float32))
    return result(seconds, len(ids))


def close(state: State) -> None:
    state.models.clear()
    state.context, state.context_case = None, None
