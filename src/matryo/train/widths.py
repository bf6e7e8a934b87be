"""Which plans a training step runs.

In: the rungs of a recipe and how they are drawn. Out: the passes of step n, the widest first. The
draw depends on the seed and the step alone: a resumed run, and every process of a run, makes the
same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from matryo.config import TextConfig
from matryo.errors import ConfigError
from matryo.plan import Plan

Mode = Literal["sum", "sample"]
MIX = "mix"  # what a Mix-n-Match pass is called among the losses


@dataclass(frozen=True, slots=True)
class Pass:
    """One run of the model within a step; weight 0 = only as the teacher, without gradients."""

    name: str
    plan: Plan
    weight: float


@dataclass(frozen=True, slots=True)
class WidthSchedule:
    """The plans of every step.

    rungs: plans by name, each inside the widest · weights: of the rungs, by name
    mode: "sum" runs every rung each step and `mixes` random plans besides; "sample" runs one plan,
    rungs with a chance proportional to their weight, a random one with the chance `mixes`
    mix_weight: of a random plan's loss, where the heaviest rung's is its own weight ("sum" only)
    skippable: blocks of layers, each left out of half the random plans
    teaches: the widest rung runs in every step, first
    """

    rungs: Mapping[str, Plan]
    weights: Mapping[str, float]
    mode: Mode
    mixes: float
    mix_weight: float
    skippable: tuple[tuple[int, ...], ...]
    teaches: bool
    seed: int

    @property
    def widest(self) -> str:
        """The name of the rung that contains all others."""
        return max(
            self.rungs,
            key=lambda name: (len(self.rungs[name].layers), sum(self.rungs[name].ffn_width)),
        )

    def check(self, config: TextConfig) -> WidthSchedule:
        """Raises ConfigError for a schedule that cannot run, PlanError for a plan that cannot."""
        if not self.rungs:
            raise ConfigError("no rung is given: name at least one plan to train")
        if set(self.weights) != set(self.rungs):
            odd = sorted(set(self.weights) ^ set(self.rungs))
            raise ConfigError(f"rung weights and plans do not agree about {', '.join(odd)}")
        if min(self.weights.values()) < 0 or sum(self.weights.values()) <= 0:
            raise ConfigError("rung weights must not be negative, and not all zero")
        if self.mode == "sample" and self.mixes > 1:
            raise ConfigError(f"mixes is a chance when sampling: expected 0 to 1, got {self.mixes}")
        if self.mode == "sum" and self.mixes != int(self.mixes):
            raise ConfigError(
                f"mixes counts plans when summing: expected a whole number, got {self.mixes}"
            )
        widest = self.rungs[self.widest]
        for name, plan in self.rungs.items():
            plan.check(config)
            if not widest.contains(plan):
                raise ConfigError(f"rung {name} is not inside the widest, {self.widest}")
        for block in self.skippable:
            _without(widest, block).check(config)
        return self

    def passes(self, step: int) -> tuple[Pass, ...]:
        """What step `step` runs, in this order; the weights of those with gradients sum to 1."""
        rng = np.random.default_rng([self.seed, step])
        if self.mode == "sum":
            chosen = [Pass(n, self.rungs[n], self.weights[n]) for n in self._order()]
            chosen += [Pass(MIX, self.mix(rng), self.mix_weight) for _ in range(int(self.mixes))]
            chosen = [one for one in chosen if one.weight > 0]
        else:
            chosen = [self._draw(rng)]
        if self.teaches and chosen[0].name != self.widest:
            chosen.insert(0, Pass(self.widest, self.rungs[self.widest], 0.0))
        total = sum(one.weight for one in chosen)
        return tuple(Pass(one.name, one.plan, one.weight / total) for one in chosen)

    def mix(self, rng: np.random.Generator) -> Plan:
        """A random plan: blocks left out by a coin, each layer as wide as some rung has it."""
        plan = self.rungs[self.widest]
        for block in self.skippable:
            if rng.random() < 0.5:
                plan = _without(plan, block)
        widths = []
        for layer in plan.layers:
            found = {
                rung.ffn_width[rung.layers.index(layer)]
                for rung in self.rungs.values()
                if layer in rung.layers
            }
            widths.append(int(rng.choice(sorted(found))))
        return Plan(plan.layers, tuple(widths), plan.num_owners)

    def _draw(self, rng: np.random.Generator) -> Pass:
        if rng.random() < self.mixes:
            return Pass(MIX, self.mix(rng), 1.0)
        names = self._order()
        shares = np.array([self.weights[name] for name in names], np.float64)
        name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
        return Pass(name, self.rungs[name], 1.0)

    def _order(self) -> list[str]:
        widest = self.widest
        return [widest, *(name for name in self.rungs if name != widest)]


def blocks_left_out(rungs: Mapping[str, Plan]) -> tuple[tuple[int, ...], ...]:
    """Runs of neighbouring layers that some rung leaves out and another keeps."""
    kept = [frozenset(plan.layers) for plan in rungs.values()]
    every: set[int] = set().union(*kept)
    blocks: list[list[int]] = []
    for layer in sorted(every - frozenset(every).intersection(*kept)):
        missing = [layer in plan for plan in kept]
        previous = blocks[-1][-1] if blocks else None
        if previous == layer - 1 and [previous in plan for plan in kept] == missing:
            blocks[-1].append(layer)
        else:
            blocks.append([layer])
    return tuple(tuple(block) for block in blocks)


def _without(plan: Plan, block: Sequence[int]) -> Plan:
    kept = [
        (layer, width)
        for layer, width in zip(plan.layers, plan.ffn_width, strict=True)
        if layer not in block
    ]
    return Plan(tuple(n for n, _ in kept), tuple(w for _, w in kept), plan.num_owners)
