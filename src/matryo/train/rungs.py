"""What training did to every rung: its loss before and after, and which became worse.

In: held-out losses of a run's first and last measurement. Out: lines for people, and warnings. A
model that is fine-tuned at its largest size alone often loses what its smaller sizes could do;
nothing but a measurement shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Measured = Mapping[str, Mapping[str, float]]

NOISE = 0.002  # nats a token: less is not called worse


@dataclass(frozen=True, slots=True)
class Change:
    """Held-out loss of a rung in nats a token."""

    name: str
    before: float
    after: float

    @property
    def is_worse(self) -> bool:
        return self.after > self.before + NOISE


def changes(before: Measured, after: Measured) -> list[Change]:
    """Of every rung that was measured both times, in the order of the second."""
    return [
        Change(name, before[name]["loss"], values["loss"])
        for name, values in after.items()
        if "loss" in values and "loss" in before.get(name, {})
    ]


def table(found: list[Change]) -> list[str]:
    """A line a rung."""
    return [
        f"{change.name:<12} {change.before:.4f} -> {change.after:.4f} nats a token "
        f"({change.after - change.before:+.4f})"
        for change in found
    ]


def warnings(found: list[Change], widest: str) -> list[str]:
    """What to be told: every rung that became worse, an inner one with what helps it."""
    told = []
    for change in found:
        if not change.is_worse:
            continue
        text = f"{change.name} got worse: {change.before:.4f} -> {change.after:.4f} nats a token"
        if change.name == widest:
            told.append(f"{text}; lower the rate, or train on more text like the held-out one")
        else:
            told.append(
                f"{text}; give it a weight in objective.rungs, and objective.divergence to learn "
                f"from {widest}"
            )
    return told
