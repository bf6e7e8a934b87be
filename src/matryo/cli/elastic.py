"""From the options of a command to what chooses the size while an answer is written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from matryo.cli.options import ElasticOptions, LoadOptions, PolicyName
from matryo.cli.outcome import CommandError

if TYPE_CHECKING:
    from matryo.elastic.complexity import Escalation
    from matryo.elastic.controller import Controller
    from matryo.loading import Model

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def open_controller(model: Model, load: LoadOptions, options: ElasticOptions) -> Controller | None:
    """The controller that the options ask for; None if the size stays as it is."""
    policy = options.policy or _policy_of(options)
    if policy is PolicyName.FIXED and not _budgets(options) and options.trace is None:
        return None
    return model.controller(
        policy.value,
        target_seconds=None if options.target_ms is None else options.target_ms / 1e3,
        memory_bytes=None if options.memory is None else parse_bytes(options.memory),
        duty=options.duty,
        size=load.size,
        kv=load.kv.value if load.kv else None,
        exact=options.exact,
        trace=options.trace,
    )


def open_escalation(model: Model, load: LoadOptions, options: ElasticOptions) -> Escalation | None:
    """What the options ask for: None unless there is --escalate."""
    if options.escalate is None:
        if options.thresholds is not None:
            raise CommandError("--thresholds say when to --escalate: give both")
        return None
    return model.escalation(
        large=load.size, mode=options.escalate.value, thresholds=options.thresholds
    )


def parse_bytes(text: str) -> int:
    """`2GB`, `1.5 GiB`, `500M`: bytes. Raises CommandError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise CommandError(f"{text!r:.40} is no amount of memory; expected one such as 2GB")
    number, unit, binary = found.groups()
    factor: int = (1024 if binary else 1000) ** _POWERS[unit.lower()]
    return round(float(number) * factor)


def _budgets(options: ElasticOptions) -> list[PolicyName]:
    given = {
        PolicyName.LATENCY: options.target_ms,
        PolicyName.MEMORY: options.memory,
        PolicyName.POWER: options.duty,
    }
    return [policy for policy, value in given.items() if value is not None]


def _policy_of(options: ElasticOptions) -> PolicyName:
    """The policy that a budget without one means."""
    budgets = _budgets(options)
    if not budgets:
        return PolicyName.FIXED
    return budgets[0] if len(budgets) == 1 else PolicyName.AUTO
