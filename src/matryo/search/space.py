"""Which plans a search may try: a width for every layer, and readers that may be skipped.

In: an open model. Out: a `Space`. A point in it is a tuple with the width of every layer, 0 for one
that is skipped. Widths are the rungs that the model's own plans use, which it was trained for, and
the middle between two of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from matryo.config import GROUP, TextConfig
from matryo.errors import InputError
from matryo.evaluate.run import plans_at_hand
from matryo.loading.model import Model
from matryo.model.parameters import count_parameters
from matryo.plan import Plan

Point = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """widths[layer]: ascending · skippable: readers · smallest, largest: of the model's plans."""

    config: TextConfig
    widths: tuple[tuple[int, ...], ...]
    skippable: frozenset[int]
    smallest: Plan
    largest: Plan

    @classmethod
    def of(cls, model: Model) -> Space:
        """What the weights at hand allow. Raises InputError if the model has one size only."""
        plans = list(plans_at_hand(model).values())
        largest = model.default_plan
        inside = [plan for plan in plans if largest.contains(plan)]
        smallest = min(inside, key=lambda plan: effective(model.config, plan))
        if smallest == largest:
            raise InputError(
                f"{model.name} has one size: there is nothing to search. Use a checkpoint with "
                "nested sizes, or add the files of the outer shells"
            )
        widths = dict.fromkeys(range(model.config.num_layers), frozenset[int]())
        for plan in inside:
            for layer, width in zip(plan.layers, plan.ffn_width, strict=True):
                widths[layer] = widths[layer] | {width}
        kept = {layer: with_middles(found) for layer, found in widths.items() if found}
        skippable = frozenset(layer for layer in largest.layers if layer >= model.config.num_owners)
        return cls(
            model.config,
            tuple(kept.get(layer, ()) for layer in range(model.config.num_layers)),
            skippable,
            smallest,
            largest,
        )

    @property
    def lower(self) -> range:
        """Layers below the last owner: their widths are the exact family."""
        return range(self.config.last_owner)

    @property
    def upper(self) -> tuple[int, ...]:
        """The last owner and the readers at hand, which differ within a family."""
        return tuple(layer for layer in self.largest.layers if layer >= self.config.last_owner)

    def point(self, plan: Plan) -> Point:
        """The widths of a plan, 0 where it skips."""
        widths = dict(zip(plan.layers, plan.ffn_width, strict=True))
        return tuple(widths.get(layer, 0) for layer in range(self.config.num_layers))

    def plan(self, point: Point) -> Plan:
        """The plan of a point."""
        layers = tuple(layer for layer, width in enumerate(point) if width)
        return Plan(layers, tuple(point[layer] for layer in layers), self.config.num_owners)

    def changed(self, point: Point, changes: Mapping[int, int]) -> Point:
        """A point with other widths in some layers."""
        return tuple(changes.get(layer, width) for layer, width in enumerate(point))

    def options(self, layer: int) -> tuple[int, ...]:
        """What a layer may be, ascending; 0 if it may be skipped."""
        return (0, *self.widths[layer]) if layer in self.skippable else self.widths[layer]

    def parameters(self, point: Point) -> int:
        """Effective parameters of a point."""
        return effective(self.config, self.plan(point))


def with_middles(widths: frozenset[int]) -> tuple[int, ...]:
    """The widths and the middle between neighbours, rounded down to the group."""
    ordered = sorted(widths)
    middles = {(a + b) // 2 // GROUP * GROUP for a, b in pairwise(ordered)}
    return tuple(sorted({*ordered, *middles}))


def effective(config: TextConfig, plan: Plan) -> int:
    """Parameters of a plan without the two tables."""
    return count_parameters(config, plan).effective
