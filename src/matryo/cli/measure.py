"""Measure a model on this machine: every size in every round, and the read bandwidth beside it.

In: an open model and what to run. Out: a `Report`. Rounds are interleaved (size A, size B, size A,
…), so that what disturbs the machine disturbs all sizes alike; a first round that warms up is
thrown away. Prompts are random ids, so nothing depends on a tokenizer, and answers are greedy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from matryo import kernels
from matryo.cli.contention import Contention
from matryo.cli.outcome import CommandError
from matryo.cli.spread import Spread
from matryo.elastic.ledger import Ledger
from matryo.loading import Model
from matryo.model.cost import kv_bytes
from matryo.sampling import GREEDY
from matryo.session import Session

BANDWIDTH_BYTES, BANDWIDTH_REPEATS = (
    256 << 20,
    3,
)  # larger than any cache; the best of three is the memory's speed
SWITCHES = 6  # there and back, three times
AFTER_SWITCH = 8  # tokens: one that may pay for the switch, and others to compare it with

Progress = Callable[[float, float | None, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to run. seconds: no round begins after so many, though one is always measured."""

    sizes: tuple[str, ...]
    prompt_tokens: int
    tokens: int
    rounds: int
    seconds: float
    kv: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeFigures:
    """One size; speeds are tokens a second.

    share: of the read bandwidth of the same round that decoding used
    """

    prefill: Spread
    decode: Spread
    share: Spread
    needed_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; needed_bytes_per_token is counted from shapes, the rest is measured."""
        return {
            "prefill_tokens_per_s": self.prefill.to_json(),
            "decode_tokens_per_s": self.decode.to_json(),
            "share_of_read_bandwidth": self.share.to_json(),
            "needed_bytes_per_token": self.needed_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Changing the size inside one answer.

    extra: seconds that the first token after it took longer than the next ones
    """

    sizes: tuple[str, str]
    assign: Spread
    extra: Spread
    keeps_cache: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "sizes": list(self.sizes),
            "seconds": self.assign.to_json(),
            "extra_seconds_of_the_next_token": self.extra.to_json(),
            "keeps_cache": self.keeps_cache,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was measured.

    bandwidth: bytes a second · others: share of the processors that other programs used
    """

    task: Task
    bandwidth: Spread
    sizes: dict[str, SizeFigures]
    switch: Switch | None
    ledger: Ledger
    others: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "prompt_tokens": self.task.prompt_tokens,
            "tokens": self.task.tokens,
            "kv": self.task.kv,
            "rounds": len(self.bandwidth.rounds),
            "read_bytes_per_s": self.bandwidth.to_json(),
            "sizes": {name: figures.to_json() for name, figures in self.sizes.items()},
            "switch": None if self.switch is None else self.switch.to_json(),
            "ledger": self.ledger.to_json(),
            "share_of_processors_used_by_others": self.others,
        }


@dataclass(slots=True)
class _Times:
    """Tokens a second of one size, one entry a round."""

    prefill: list[float]
    decode: list[float]


def measure(model: Model, task: Task, progress: Progress) -> Report:
    """Run the task. Raises CommandError if prompt and answer do not fit into the context."""
    needed = task.prompt_tokens + task.tokens + 1
    if needed > model.config.context_length:
        raise CommandError(
            f"{needed} tokens do not fit into the context of {model.config.context_length}: "
            "choose a smaller --prompt-tokens or --tokens"
        )
    ids = _random_ids(task.prompt_tokens, model.config.ple_vocab_size)
    times = {name: _Times([], []) for name in task.sizes}
    bandwidth: list[float] = []
    with Contention() as contention:
        started = time.perf_counter()
        for number in range(-1, task.rounds):  # round -1 warms up
            if len(bandwidth) and time.perf_counter() - started > task.seconds:
                break
            speed = _read_bandwidth()
            for place, name in enumerate(task.sizes):
                done = (number + 1) * len(task.sizes) + place
                progress(done, (task.rounds + 1) * len(task.sizes), name)
                prefill, decode = _measure_size(model, name, ids, task)
                if number >= 0:
                    times[name].prefill.append(prefill)
                    times[name].decode.append(decode)
            if number >= 0:
                bandwidth.append(speed)
        switch = _measure_switch(model, ids, task)
    session = model.session(plan=task.sizes[-1], kv=task.kv)
    _generate(session, ids, 1)  # so that the ledger shows what a conversation of this length takes
    sizes = {name: _figures(model, name, times[name], bandwidth, task) for name in task.sizes}
    return Report(
        task=task,
        bandwidth=Spread.of(bandwidth),
        sizes=sizes,
        switch=switch,
        ledger=model.ledger(),
        others=contention.share_of_others,
    )


def _random_ids(count: int, limit: int) -> list[int]:
    generator = np.random.default_rng(count)
    return [int(token) for token in generator.integers(limit // 2, limit, count)]


def _read_bandwidth() -> float:
    """Bytes a second that the worker threads read from memory together."""
    return 1e9 * max(kernels.read_bandwidth(BANDWIDTH_BYTES, kernels.threads(), BANDWIDTH_REPEATS))


def _measure_size(model: Model, name: str, ids: Sequence[int], task: Task) -> tuple[float, float]:
    """Tokens a second of reading the prompt and of writing the answer behind it."""
    session = model.session(plan=name, kv=task.kv)
    started = time.perf_counter()
    _generate(session, ids, 1)
    first = time.perf_counter()
    for_each = _seconds_for_tokens(session, task.tokens)
    return len(ids) / (first - started), len(for_each) / sum(for_each)


def _generate(session: Session, ids: Sequence[int], count: int) -> None:
    for _ in session.generate(ids, max_tokens=count, sampling=GREEDY):
        pass


def _seconds_for_tokens(session: Session, count: int) -> list[float]:
    """Seconds for each of `count` more tokens, sampling included; an end token ends nothing."""
    seconds: list[float] = []
    while len(seconds) < count:
        before = time.perf_counter()
        for event in session.generate(None, max_tokens=count - len(seconds), sampling=GREEDY):
            now = time.perf_counter()
            if event.kind == "token" or event.finish_reason == "stop":
                seconds.append(now - before)
                before = now
    return seconds


def _measure_switch(model: Model, ids: Sequence[int], task: Task) -> Switch | None:
    """Go from the first size to the last and back inside one session; None with one size."""
    if len(task.sizes) < 2:
        return None
    small, large = task.sizes[0], task.sizes[-1]
    length = len(ids) + 1 + SWITCHES * AFTER_SWITCH
    if length + 1 > model.config.context_length:
        return None
    session = model.session(plan=large, kv=task.kv)
    _generate(session, ids, 1)
    assign: list[float] = []
    extra: list[float] = []
    for number in range(SWITCHES):
        before = time.perf_counter()
        session.plan = (small, large)[number % 2]
        assign.append(time.perf_counter() - before)
        first, *rest = _seconds_for_tokens(session, AFTER_SWITCH)
        extra.append(first - median(rest))
    keeps = model.plan(small).owners == model.plan(large).owners
    return Switch(
        sizes=(small, large), assign=Spread.of(assign), extra=Spread.of(extra), keeps_cache=keeps
    )


def _figures(
    model: Model, name: str, times: _Times, bandwidth: Sequence[float], task: Task
) -> SizeFigures:
    plan = model.plan(name)
    middle = task.prompt_tokens + task.tokens // 2
    needed = model.cost(plan).bytes + kv_bytes(model.config, plan, task.kv, middle)
    shares = [
        needed * speed / available for speed, available in zip(times.decode, bandwidth, strict=True)
    ]
    return SizeFigures(
        prefill=Spread.of(times.prefill),
        decode=Spread.of(times.decode),
        share=Spread.of(shares),
        needed_bytes=needed,
    )
