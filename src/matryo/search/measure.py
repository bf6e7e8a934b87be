"""How fast a plan is here, and what it keeps in memory.

In: an open model and a plan. Out: times a token and resident bytes. Times are ratios to the largest
plan, measured in turns with it and multiplied by its time, so that what disturbs the machine for a
while disturbs both. Resident bytes are what the operating system says after every page of the
weights was given back and the plan has run.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from matryo import kernels
from matryo.loading.model import Model
from matryo.plan import Plan

PROMPT, DECODED, ROUNDS = 64, 12, 3
"""Tokens of a prompt and behind it, and turns that count: at least so many."""
MEASURED_S, MAX_ROUNDS = 0.1, 15
"""Models whose turns are shorter take more of them, for so many seconds."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds a token: of a prompt, and of an answer behind it."""

    prefill_ms: float
    decode_ms: float

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


class Meter:
    """Measures plans of one model beside its largest."""

    def __init__(self, model: Model, largest: Plan, kv_kind: str) -> None:
        self._model, self._largest, self._kv_kind = model, largest, kv_kind
        generator = np.random.default_rng(0)
        limit = model.config.ple_vocab_size
        count = max(1, min(PROMPT, model.engine.context - DECODED))
        self._ids = generator.integers(limit // 2, limit, count).astype(np.int32)
        self._decoded = min(DECODED, model.engine.context - count)
        self.reference = Speed(0.0, 0.0)
        # Of files that are none of the weights', such as encoders; and weights packed in memory.
        self._floor: int | None = None
        self._private = self._weight_bytes("private")

    def calibrate(self, known: Speed | None = None) -> Speed:
        """The speed of the largest plan, which all others are beside; measured once."""
        if known is None:
            self._run(self._largest)  # warms up
            known = _median([self._run(self._largest) for _ in range(2 * ROUNDS + 1)])
        self.reference = known
        return known

    def speed(self, plan: Plan) -> Speed:
        """A plan in turns with the largest."""
        self._run(plan)
        prefill: list[float] = []
        decode: list[float] = []
        started = time.perf_counter()
        while len(decode) < ROUNDS or (
            len(decode) < MAX_ROUNDS and time.perf_counter() - started < MEASURED_S
        ):
            beside, own = self._run(self._largest), self._run(plan)
            prefill.append(own.prefill_ms / beside.prefill_ms)
            decode.append(own.decode_ms / beside.decode_ms)
        return Speed(
            self.reference.prefill_ms * median(prefill), self.reference.decode_ms * median(decode)
        )

    def resident_bytes(self, plan: Plan) -> int:
        """Bytes of the weights in memory after this plan alone has run; for weights in private
        memory all of them.
        """
        self._model.forget_pages()
        if self._floor is None:
            self._floor = self._weight_bytes("mapped")
        self._run(plan)
        mapped = self._weight_bytes("mapped")
        return max(mapped - self._floor, 0) + self._private

    def _weight_bytes(self, kind: str) -> int:
        """Resident bytes of all mapped files, or of weights in private memory."""
        return sum(
            row.resident_bytes
            for row in self._model.ledger().rows
            if row.kind == kind and (kind == "mapped" or row.name == "weights")
        )

    def _run(self, plan: Plan) -> Speed:
        engine = self._model.engine
        sequence = engine.new_sequence(plan, self._kv_kind)
        started = time.perf_counter()
        engine.prefill(sequence, plan, self._ids)
        prefill = time.perf_counter() - started
        seconds = []
        for number in range(self._decoded):
            before = time.perf_counter()
            engine.decode([sequence], [plan], [int(self._ids[number % len(self._ids)])])
            seconds.append(time.perf_counter() - before)
        return Speed(1e3 * prefill / len(self._ids), 1e3 * median(seconds or [prefill]))


def device() -> dict[str, Any]:
    """What speeds were measured on."""
    return {
        "host": platform.node(),
        "machine": platform.machine(),
        "isa": kernels.isa(),
        "threads": kernels.threads(),
    }


def _median(speeds: Sequence[Speed]) -> Speed:
    return Speed(median(one.prefill_ms for one in speeds), median(one.decode_ms for one in speeds))
