"""Which size next: a pure function from the last state and a reading to a state, a setting and the
reason.

In: `Rules` (the ladder of levels and what is asked for), a `State`, a `Reading`. Out: the next
`State`, a `Setting`, and why it changed ("" if it did not). No clock and no machine is asked here,
so that a recorded trace gives the same decisions again.

Getting smaller is quick and getting larger is slow. A level is left as soon as a rule forbids it; a
fuller one is taken only when every rule has allowed it, with a margin, for a whole dwell time. A
growth that has to be taken back soon doubles the dwell time of the next one.

One slow token is no load. Slow tokens that took a quarter of a second together are one, and so is
one slow token if the processors bear witness: others have just begun to use much of them. In a
crowd that lasts, the second witness counts no more, so that noise does not change the size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from matryo.elastic.ladder import Level
from matryo.elastic.load import Reading
from matryo.errors import InputError

Kind = Literal["fixed", "latency", "memory", "power", "auto"]
KINDS: tuple[Kind, ...] = ("fixed", "latency", "memory", "power", "auto")

DWELL_S = 1.0  # for which a fuller level has to be allowed before it is taken
LONGEST_DWELL_S = 32.0
CONFIRM_S = 0.25  # for which tokens have to be too slow
CROWDED = 0.25  # of the processors: more than others usually use
CROWD_MEMORY_S = 2.0  # in which what others use becomes usual
BELOW = 0.85  # of a target; what another level, fuller or leaner, is predicted to take
GROW_BELOW_MEMORY = 0.92  # of a limit of memory; what a fuller level is predicted to hold
SHRINK_BELOW_MEMORY = 0.95  # what a leaner one is predicted to hold
RESERVED = 0.05  # of the machine's memory, left to others where no limit is given
PRESSED = 0.10  # share of time waited for memory that counts as pressure
LOW_BATTERY, HOT_C = 0.2, 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is asked for.

    target_seconds: most a token may take · memory_bytes: most this process may have resident
    duty: share of the time in which the machine may work for us
    """

    kind: Kind = "fixed"
    target_seconds: float | None = None
    memory_bytes: int | None = None
    duty: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"policy: expected one of {', '.join(KINDS)}, got {self.kind!r:.40}")
        self._check_range("a target for a token", self.target_seconds, 1e-4, 3600.0, "seconds")
        self._check_range("memory", self.memory_bytes, 1, 1 << 50, "bytes")
        self._check_range("duty", self.duty, 0.01, 1.0, "as a share of the time")
        given = {
            "latency": self.target_seconds, "memory": self.memory_bytes, "power": self.duty,
        }  # fmt: skip
        for kind, value in given.items():
            if value is not None and self.kind not in (kind, "auto"):
                raise InputError(
                    f"the policy {self.kind!r} has no use for the budget of {kind!r}: choose the "
                    f"policy {kind!r}, or 'auto' to keep several budgets"
                )
        if self.kind == "latency" and self.target_seconds is None:
            raise InputError("the policy 'latency' needs a target: how long a token may take")
        if self.kind == "power" and self.duty is None:
            raise InputError("the policy 'power' needs a duty: the share of the time to work")

    @staticmethod
    def _check_range(what: str, value: float | None, low: float, high: float, unit: str) -> None:
        if value is not None and not low <= value <= high:
            raise InputError(f"{what}: expected {low:g} to {high:g} {unit}, got {value!r:.40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Everything a decision depends on besides state and reading.

    levels: the ladder, the fullest first · file_bytes: resident pages of programs and libraries
    """

    policy: Policy
    levels: tuple[Level, ...]
    file_bytes: int = 0

    @property
    def smallest(self) -> int:
        """The first level of the smallest plan; what follows saves memory, not time."""
        return next(i for i, one in enumerate(self.levels) if one.plan == self.levels[-1].plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where the policy stands; times are those of readings.

    changed_at: of the last change · slow_since: tokens have been too slow · calm_since: a fuller
    level has been allowed · grown_at: of the last growth
    trimmed_at: pages outside the plan were given back · told: that no level keeps what is asked for
    others: share of the processors that others usually use · read_at: of the latest reading
    """

    level: int = 0
    changed_at: float = float("-inf")
    slow_since: float | None = None
    calm_since: float | None = None
    grown_at: float = float("-inf")
    dwell: float = DWELL_S
    trimmed_at: float = float("-inf")
    told: bool = False
    others: float = 0.0
    read_at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Setting:
    """What to run with now.

    trim: give back pages that the level does not need · rest: seconds to wait after a token, as a
    multiple of what it took
    """

    level: int
    trim: bool
    rest: float


@dataclass(frozen=True, slots=True)
class _Bound:
    """What one rule says: the fullest level it allows now, the fullest it would grow to, and why.

    urgent: leave a forbidden level at once, without confirmation · unmet: no level does
    """

    now: int
    grow: int
    why: str
    urgent: bool = True
    unmet: bool = False


_FREE = _Bound(0, 0, "")


def decide(rules: Rules, state: State, reading: Reading) -> tuple[State, Setting, str]:
    """The next state, what to run with, and why it changed ("" if nothing did).

    A reason without another level says, once, that no level keeps what is asked for.
    """
    bounds = [
        bound
        for bound in (
            _latency(rules, state, reading),
            _memory(rules, state, reading),
            _power(rules, reading),
        )
        if bound is not _FREE
    ]
    strictest = max(bounds, key=lambda bound: (bound.now, bound.unmet), default=_FREE)
    grow = max((bound.grow for bound in bounds), default=0)
    state = _noted_slow(state, strictest, reading)
    reason = ""
    if strictest.now > state.level and _is_confirmed(state, strictest, reading):
        state, reason = _shrunk(state, strictest.now, reading), strictest.why
    elif strictest.unmet and _is_confirmed(state, strictest, reading):
        if not state.told:
            state, reason = replace(state, told=True), strictest.why
    elif grow < state.level and strictest.now < state.level:
        state, grown = _grown(state, grow, reading)
        reason = _why_grown(rules) if grown else ""
    else:
        state = replace(state, calm_since=None)
    state = _used_to(state, reading)
    trim = _must_trim(rules, state, reading, changed=bool(reason))
    if trim:
        state = replace(state, trimmed_at=reading.seconds)
    return state, Setting(state.level, trim, _rest(rules, reading)), reason


def predicted_bytes(rules: Rules, level: int, reading: Reading) -> int:
    """What this process would have resident at a level."""
    one = rules.levels[level]
    own = max(reading.private_bytes - reading.kv_bytes, 0)
    return own + rules.file_bytes + one.weight_bytes + one.kv_bytes(reading.context_tokens)


def memory_limit(rules: Rules, reading: Reading) -> int | None:
    """Most bytes this process may have resident: the budget, the control group's limit, and what
    the machine has left. None if the policy does not ask for memory.
    """
    if rules.policy.kind not in ("memory", "auto"):
        return None
    limits = [
        limit for limit in (rules.policy.memory_bytes, reading.memory_limit) if limit is not None
    ]
    if reading.available_bytes is not None and reading.total_bytes is not None:
        reserved = round(RESERVED * reading.total_bytes)
        limits.append(max(reading.resident_bytes + reading.available_bytes - reserved, 0))
    return min(limits, default=None)


def _latency(rules: Rules, state: State, reading: Reading) -> _Bound:
    target, took = rules.policy.target_seconds, reading.token_seconds
    if target is None:
        return _FREE
    level = min(state.level, rules.smallest)
    sudden = reading.others > state.others + CROWDED and (reading.latest_token or 0.0) > target
    if sudden:
        took = reading.latest_token
    if took is None:
        return _Bound(state.level, state.level, "")
    unit = took / rules.levels[level].cost
    costs = [one.cost * unit for one in rules.levels[: rules.smallest + 1]]
    best = _first_below(costs, BELOW * target)
    if took <= target:
        return _Bound(0, best, "")
    confirmed = sudden or reading.slower_tokens >= CONFIRM_S
    if level == rules.smallest:
        why = (
            f"no size keeps {target * 1e3:.0f} ms a token; the nearest, "
            f"{rules.levels[level].name}, takes {took * 1e3:.0f} ms"
        )
        return _Bound(state.level, state.level, why, urgent=confirmed, unmet=True)
    now = max(best, level + 1)
    busy = f", others use {reading.others:.0%} of the processors" if reading.others > 0.1 else ""
    why = f"a token took {took * 1e3:.0f} ms, {target * 1e3:.0f} are wanted{busy}"
    return _Bound(now, now, why, urgent=confirmed)


def _memory(rules: Rules, state: State, reading: Reading) -> _Bound:
    limit = memory_limit(rules, reading)
    if limit is None:
        return _FREE
    needed = [predicted_bytes(rules, i, reading) for i in range(len(rules.levels))]
    now = 0 if needed[state.level] <= limit else _first_below(needed, SHRINK_BELOW_MEMORY * limit)
    why = f"{_size(needed[state.level])} are more than the limit of {_size(limit)}"
    over = reading.resident_bytes > limit and reading.seconds - state.trimmed_at < DWELL_S
    if over and now <= state.level and state.trimmed_at >= state.changed_at:
        # Giving back what the level does not need was not enough.
        now = min(state.level + 1, len(rules.levels) - 1)
        why = f"{_size(reading.resident_bytes)} are resident, {_size(limit)} is the limit"
    grow = _first_below(needed, GROW_BELOW_MEMORY * limit)
    if (reading.memory_pressure or 0.0) > PRESSED:
        grow = max(grow, state.level)
    return _Bound(now, max(grow, now), why)


def _power(rules: Rules, reading: Reading) -> _Bound:
    duty = _duty(rules, reading)
    if duty is None:
        return _FREE
    costs = [float(one.cost) for one in rules.levels[: rules.smallest + 1]]
    level = _first_below(costs, duty * costs[0])
    return _Bound(level, level, f"the machine may work {duty:.0%} of the time")


def _duty(rules: Rules, reading: Reading) -> float | None:
    """The duty asked for; half of it on a low battery or a hot machine."""
    if rules.policy.kind not in ("power", "auto"):
        return None
    low = reading.battery is not None and reading.battery < LOW_BATTERY and reading.plugged is False
    hot = reading.temperature is not None and reading.temperature > HOT_C
    if rules.policy.duty is None and not (low or hot):
        return None
    return (rules.policy.duty or 1.0) * (0.5 if low or hot else 1.0)


def _rest(rules: Rules, reading: Reading) -> float:
    duty = _duty(rules, reading)
    return 0.0 if duty is None else 1.0 / duty - 1.0


def _first_below(values: Sequence[float], limit: float) -> int:
    """The fullest level whose value is within the limit, or the one nearest to it."""
    for index, value in enumerate(values):
        if value <= limit:
            return index
    return values.index(min(values))


def _noted_slow(state: State, bound: _Bound, reading: Reading) -> State:
    if bound.now <= state.level and not bound.unmet:
        return replace(state, slow_since=None)
    return state if state.slow_since is not None else replace(state, slow_since=reading.seconds)


def _is_confirmed(state: State, bound: _Bound, reading: Reading) -> bool:
    since = state.slow_since
    return bound.urgent or (since is not None and reading.seconds - since >= CONFIRM_S)


def _used_to(state: State, reading: Reading) -> State:
    """What others use becomes usual."""
    elapsed = max(reading.seconds - state.read_at, 0.0)
    kept = math.exp(-elapsed / CROWD_MEMORY_S)
    others = kept * state.others + (1.0 - kept) * reading.others
    return replace(state, others=others, read_at=reading.seconds)


def _shrunk(state: State, level: int, reading: Reading) -> State:
    soon = reading.seconds - state.grown_at < 3.0 * state.dwell
    return replace(
        state,
        level=level,
        changed_at=reading.seconds,
        slow_since=None,
        calm_since=None,
        dwell=min(2.0 * state.dwell, LONGEST_DWELL_S) if soon else state.dwell,
    )


def _grown(state: State, level: int, reading: Reading) -> tuple[State, bool]:
    since = reading.seconds if state.calm_since is None else state.calm_since
    if reading.seconds - max(since, state.changed_at) < state.dwell:
        return replace(state, calm_since=since), False
    # A growth that has held for long is forgiven the ones before it that did not.
    held = reading.seconds - state.grown_at > 8.0 * state.dwell
    return (
        replace(
            state,
            level=level,
            changed_at=reading.seconds,
            calm_since=None,
            told=False,
            grown_at=reading.seconds,
            dwell=max(state.dwell / 2.0, DWELL_S) if held else state.dwell,
        ),
        True,
    )


def _why_grown(rules: Rules) -> str:
    asked = {"latency": "time", "memory": "memory", "power": "power"}
    return f"there is room for more {asked.get(rules.policy.kind, 'work')} again"


def _must_trim(rules: Rules, state: State, reading: Reading, *, changed: bool) -> bool:
    limit = memory_limit(rules, reading)
    if limit is None:
        return False
    shrunk = changed and state.grown_at != reading.seconds
    tried = reading.seconds - state.trimmed_at < DWELL_S
    return shrunk or (reading.resident_bytes > SHRINK_BELOW_MEMORY * limit and not tried)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"
