"""A machine that is not there: tokens that take as long as a made-up load says, and no clock.

In: rules and what the machine is like at each second. Out: the decisions, as a trace has them. Used
to see whether a policy is stable and how fast it reacts, without waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from matryo.elastic.load import SAMPLE_S, Reading
from matryo.elastic.pace import Pace
from matryo.elastic.policy import Rules, State, decide
from matryo.elastic.trace import Decision


@dataclass(frozen=True, slots=True)
class Conditions:
    """The machine at one moment.

    bytes_per_second: at which a token's weights are read · overhead_seconds: of every token besides
    reading: further fields, such as memory_limit or private_bytes
    """

    bytes_per_second: float
    overhead_seconds: float = 0.0
    reading: Reading | None = None


def simulate(
    rules: Rules, machine: Callable[[float], Conditions], seconds: float
) -> list[Decision]:
    """Generate for so many seconds of that machine; one decision for every reading."""
    state, pace, now, context = State(), Pace(), 0.0, 0
    decisions: list[Decision] = []
    read_at = -SAMPLE_S
    while now < seconds:
        conditions = machine(now)
        if now - read_at >= SAMPLE_S:
            read_at = now
            level = rules.levels[state.level]
            known = conditions.reading or Reading(seconds=now)
            kv_bytes = level.kv_bytes(context)
            reading = replace(
                known,
                seconds=now,
                token_seconds=pace.token_seconds,
                latest_token=pace.latest,
                slower_tokens=pace.slower_half,
                context_tokens=context,
                kv_bytes=kv_bytes,
                private_bytes=known.private_bytes + kv_bytes,
                resident_bytes=known.private_bytes
                + kv_bytes
                + rules.file_bytes
                + level.weight_bytes,
            )
            before = state.level
            state, setting, reason = decide(rules, state, reading)
            decisions.append(Decision(reading, setting, reason))
            if state.level != before:
                pace.restart()
        level = rules.levels[state.level]
        took = conditions.overhead_seconds + level.cost / conditions.bytes_per_second
        pace.note(took)
        now += took
        context = min(context + 1, level.window)
    return decisions
