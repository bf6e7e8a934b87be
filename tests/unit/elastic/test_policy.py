"""The policy alone: no clock, no machine, no model."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from helpers.elastic import LATENCY, MB, rules
from matryo.elastic.load import Reading
from matryo.elastic.policy import (
    DWELL_S,
    LONGEST_DWELL_S,
    Policy,
    State,
    decide,
)
from matryo.elastic.simulate import Conditions, simulate
from matryo.elastic.trace import Decision
from matryo.errors import InputError

MEMORY = rules(Policy(kind="memory", memory_bytes=100 * MB), windows=(500, 250))


def changes(decisions: list[Decision]) -> list[tuple[float, int]]:
    found, level = [], 0
    for decision in decisions:
        if decision.setting.level != level:
            level = decision.setting.level
            found.append((round(decision.reading.seconds, 2), level))
    return found


def level_at(decisions: list[Decision], seconds: float) -> int:
    return next(d for d in reversed(decisions) if d.reading.seconds <= seconds).setting.level


def test_fixed_never_changes_whatever_happens() -> None:
    reading = Reading(seconds=9.0, token_seconds=9.0, resident_bytes=10**12, battery=0.01)
    state, setting, reason = decide(rules(Policy()), State(), reading)
    assert (setting.level, setting.trim, setting.rest, reason) == (0, False, 0.0, "")
    assert state.level == 0


def test_a_slow_token_is_no_load_and_slow_tokens_are() -> None:
    slow = Reading(seconds=1.0, token_seconds=0.14)
    state, setting, _ = decide(LATENCY, State(), slow)
    assert setting.level == 0
    calm, _, _ = decide(LATENCY, state, replace(slow, seconds=1.1, token_seconds=0.09))
    assert calm.slow_since is None
    state, setting, reason = decide(LATENCY, state, replace(slow, seconds=1.3, others=0.8))
    assert setting.level == 2  # 60 MB: 0.084 s; 80 MB would take 0.112
    assert "140 ms" in reason and "100" in reason and "80%" in reason


def test_latency_reacts_within_two_seconds_and_recovers_when_the_load_ends() -> None:
    def machine(seconds: float) -> Conditions:
        return Conditions(600e6 if 10 <= seconds < 30 else 1250e6)

    decisions = simulate(LATENCY, machine, 60)
    assert level_at(decisions, 9.9) == 0
    within = [d for d in decisions if 12 <= d.reading.seconds < 30]
    assert all((d.reading.token_seconds or 0) <= 0.1 for d in within)
    assert level_at(decisions, 29.9) == 3  # 60 MB would just reach the target: no
    assert level_at(decisions, 36) == 0
    assert len(changes(decisions)) <= 4


def crowd(share: float) -> Reading:
    return Reading(seconds=0.0, others=share)


@pytest.mark.parametrize(("others", "tokens"), [(0.75, 1), (0.0, 2)])
def test_the_size_follows_a_load_after_one_token_if_others_explain_it_and_after_two_if_not(
    others: float, tokens: int
) -> None:
    """A token takes 0.1 s, five times as long under the load; 0.34 s are wanted."""
    slow = rules(Policy(kind="latency", target_seconds=0.34))

    def machine(seconds: float) -> Conditions:
        return Conditions(200e6, reading=crowd(others)) if seconds >= 10 else Conditions(1e9)

    decisions = simulate(slow, machine, 30)
    ((at, level),) = changes(decisions)
    assert level == 3 and 10 + 0.5 * tokens <= at < 10.1 + 0.5 * tokens + 0.1


def test_what_others_use_does_not_matter_while_tokens_are_quick_enough() -> None:
    decisions = simulate(LATENCY, lambda s: Conditions(1050e6, reading=crowd(float(s > 5))), 20)
    assert not changes(decisions)


def test_noise_in_a_lasting_crowd_changes_the_size_as_seldom_as_without_one() -> None:
    """Tokens of 60 to 130 ms, 90 in the middle, of which 100 are wanted."""

    def count(seed: int, others: float) -> int:
        draw = random.Random(seed)
        noise = (0.06, 0.09, 0.09, 0.13)
        return len(
            changes(
                simulate(
                    LATENCY,
                    lambda _: Conditions(100e6 / draw.choice(noise), reading=crowd(others)),
                    60,
                )
            )
        )

    crowded = [count(seed, 0.75) for seed in range(4)]
    assert crowded == [count(seed, 0.0) for seed in range(4)]
    assert max(crowded) <= 12  # of some 600 tokens


@pytest.mark.parametrize("others", [0.0, 0.75])
@pytest.mark.parametrize("period", [0.5, 1.0, 3.0, 7.0])
def test_a_load_that_comes_and_goes_does_not_make_the_size_flap(
    period: float, others: float
) -> None:
    def machine(seconds: float) -> Conditions:
        loaded = seconds % period < period / 2
        return Conditions(700e6 if loaded else 1250e6, reading=crowd(others * loaded))

    decisions = simulate(LATENCY, machine, 120)
    # A plain threshold would change twice a period. Growths that fail come ever more seldom.
    assert len(changes(decisions)) <= min(2 * 120 / period, 14)
    assert decisions[-1].setting.level in (0, 1, 2, 3)


def test_a_target_between_two_sizes_settles() -> None:
    """81 ms at the second size, 101 at the first: growing would break the target at once."""
    decisions = simulate(LATENCY, lambda _: Conditions(990e6), 60)
    assert [level for _, level in changes(decisions)] == [1]


def test_failed_growth_makes_the_next_one_wait_longer() -> None:
    state = State(level=1, changed_at=0.0, grown_at=-100.0)
    fast = Reading(seconds=1.0, token_seconds=0.03)
    state, setting, _ = decide(LATENCY, state, fast)
    assert setting.level == 1 and state.calm_since == 1.0
    state, setting, reason = decide(LATENCY, state, replace(fast, seconds=1.0 + DWELL_S))
    assert setting.level == 0 and "room" in reason
    slow = Reading(seconds=2.5, token_seconds=0.2)
    state, _, _ = decide(LATENCY, state, slow)
    state, setting, _ = decide(LATENCY, state, replace(slow, seconds=2.9))
    assert setting.level > 0 and state.dwell == 2 * DWELL_S
    assert replace(state, dwell=LONGEST_DWELL_S).dwell == LONGEST_DWELL_S


def test_a_target_that_no_size_meets_is_said_once_with_the_nearest() -> None:
    decisions = simulate(LATENCY, lambda _: Conditions(100e6), 30)
    said = [d.reason for d in decisions if d.reason]
    assert len(said) == 2 and said[1].startswith("no size keeps 100 ms")
    assert "s50" in said[1] and "500 ms" in said[1]
    assert decisions[-1].setting.level == 3  # time is not saved by int8 or a shorter context


def memory(limit: int, private: int = 10 * MB, seconds: float = 1.0, tokens: int = 0) -> Reading:
    return Reading(
        seconds=seconds, private_bytes=private, resident_bytes=0, memory_limit=limit,
        context_tokens=tokens, kv_bytes=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "tokens", "level"),
    [
        (200, 100, 1), (80, 100, 2), (66, 100, 3),
        (70, 2000, 4), (66, 2000, 5), (65, 2000, 6), (30, 2000, 6),
    ],
)  # fmt: skip
def test_memory_gives_up_the_plan_then_precision_then_context(
    limit: int, tokens: int, level: int
) -> None:
    """10 MB are our own; the budget is 100 MB; 5 % stay free.

    K/V of 2,000 tokens take 10 MB in the window of 1,000, 5 in int8, then 2.5 and 1.25.
    """
    _, setting, reason = decide(MEMORY, State(), memory(limit * MB, tokens=tokens))
    assert setting.level == level and setting.trim and "more than the limit" in reason


def test_memory_returns_below_its_limit_at_once_and_grows_back() -> None:
    def machine(seconds: float) -> Conditions:
        limit = 75 * MB if 10 <= seconds < 20 else 100 * MB
        return Conditions(1e9, reading=Reading(seconds=0, private_bytes=5 * MB, memory_limit=limit))

    decisions = simulate(rules(Policy(kind="auto")), machine, 40)
    assert level_at(decisions, 9) == 1
    for decision in decisions:
        if 10.5 <= decision.reading.seconds < 20:
            assert decision.reading.resident_bytes <= 75 * MB
    assert level_at(decisions, 19) in (2, 3) and level_at(decisions, 30) == 1
    assert len(changes(decisions)) <= 4


def test_what_a_level_does_not_explain_makes_it_smaller_after_giving_back() -> None:
    """Pages that the prediction does not know, such as those of the tables."""
    reading = replace(memory(100 * MB, private=1 * MB), resident_bytes=130 * MB)
    state, setting, _ = decide(MEMORY, State(level=1), reading)
    assert setting.trim and setting.level == 1
    state, setting, reason = decide(MEMORY, state, replace(reading, seconds=1.2))
    assert setting.level == 2 and "130 MB" in reason


def test_the_machine_s_own_memory_is_a_limit_too() -> None:
    reading = replace(
        memory(1 << 60), resident_bytes=60 * MB, available_bytes=70 * MB, total_bytes=1000 * MB
    )
    _, setting, _ = decide(rules(Policy(kind="memory")), State(), reading)
    assert setting.level == 2  # 60 + 70 - 50 = 80 MB; ours 10


def test_power_works_its_share_of_the_time() -> None:
    _, setting, reason = decide(rules(Policy(kind="power", duty=0.6)), State(), Reading(seconds=0))
    assert setting.level == 2 and setting.rest == pytest.approx(2 / 3) and "60%" in reason


def test_auto_keeps_all_budgets_and_spares_a_low_battery_and_a_hot_machine() -> None:
    both = rules(Policy(kind="auto", target_seconds=0.1, memory_bytes=100 * MB))
    reading = replace(memory(72 * MB), token_seconds=0.01)
    assert decide(both, State(), reading)[1].level == 3
    for strained in (
        replace(reading, memory_limit=None, battery=0.1, plugged=False),
        replace(reading, memory_limit=None, temperature=95.0),
    ):
        _, setting, _ = decide(both, State(), strained)
        assert setting.level == 3 and setting.rest == 1.0
    plugged = replace(reading, memory_limit=None, battery=0.1, plugged=True)
    assert decide(both, State(), plugged)[1].rest == 0.0


def test_no_growth_under_memory_pressure() -> None:
    state = State(level=2, changed_at=0.0)
    free = replace(memory(200 * MB, private=1 * MB, seconds=5.0), memory_pressure=0.5)
    for seconds in (5.0, 7.0, 9.0):
        state, setting, _ = decide(
            rules(Policy(kind="memory")), state, replace(free, seconds=seconds)
        )
    assert setting.level == 2
    for seconds in (10.0, 12.0):
        calm = replace(free, seconds=seconds, memory_pressure=0.0)
        state, setting, _ = decide(rules(Policy(kind="memory")), state, calm)
    assert setting.level == 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "latency"}, "needs a target"),
        ({"kind": "power"}, "needs a duty"),
        ({"kind": "fixed", "memory_bytes": 2 << 30}, "choose the policy 'memory'"),
        ({"kind": "latency", "target_seconds": 0.1, "duty": 0.5}, "choose the policy 'power'"),
        ({"kind": "memory", "target_seconds": 0.1}, "choose the policy 'latency'"),
        ({"kind": "fast"}, "expected one of fixed"),
        ({"kind": "latency", "target_seconds": 0.0}, "expected 0.0001 to 3600 seconds"),
        ({"kind": "latency", "target_seconds": float("nan")}, "expected 0.0001"),
        ({"kind": "memory", "memory_bytes": -1}, "bytes"),
        ({"kind": "power", "duty": 1.5}, "expected 0.01 to 1"),
    ],
)
def test_contradictory_budgets_are_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Policy(**fields)  # type: ignore[arg-type]
