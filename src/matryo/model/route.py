"""A plan resolved against weights: what the loop over the layers needs, looked up once.

In: config, weights, plan, native layers. Out: `Route`, tuples of handles and indices. Made once a
plan and kept by the model, so that switching plans between tokens costs a dictionary look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.config import TextConfig
from matryo.errors import KernelError
from matryo.kernels.layer import Layer, Matrix
from matryo.plan import Plan
from matryo.weights import TextWeights

Index = slice | npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One layer of a route. `table` and `angle` index the tables of the cache and the angles of the
    state.
    """

    handle: Any
    width: int
    table: int
    angle: int
    owns_kv: bool


@dataclass(frozen=True, slots=True, eq=False)
class PleSource:
    """Where one shell's table goes: slots of its rows -> places in the layer order of a stretch."""

    matrix: Matrix
    num_slots: int
    slots: Index
    places: Index


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Consecutive kept layers that see the same rows."""

    steps: tuple[Step, ...]
    ple_projections: tuple[Matrix, ...]
    ple_sources: tuple[PleSource, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """`whole` is every kept layer; `lower` ends below the last owner and `upper` starts with it."""

    owners: tuple[int, ...]
    whole: Stretch
    lower: Stretch
    upper: Stretch


def resolve(config: TextConfig, weights: TextWeights, plan: Plan, handles: Sequence[Any]) -> Route:
    """handles[l] is what the kernels take for layer l. Raises PlanError if the weights at hand
    cannot run the plan.
    """
    weights.check(plan.check(config))
    widths = dict(zip(plan.layers, plan.ffn_width, strict=True))
    split = plan.layers.index(config.last_owner)

    def stretch(layers: tuple[int, ...]) -> Stretch:
        steps = tuple(_step(config, plan, layer, widths[layer], handles[layer]) for layer in layers)
        projections = tuple(_layer(weights, layer).ple_model_projection for layer in layers)
        return Stretch(steps, projections, _ple_sources(weights, layers))

    lower, upper = plan.layers[:split], plan.layers[split:]
    return Route(plan.owners, stretch(plan.layers), stretch(lower), stretch(upper))


def rope_bases(config: TextConfig) -> tuple[float, ...]:
    """The distinct RoPE bases, in the order the angles are kept."""
    return tuple(sorted(set(config.rope_theta)))


def _step(config: TextConfig, plan: Plan, layer: int, width: int, handle: Any) -> Step:
    return Step(
        handle,
        width,
        plan.owners.index(config.kv_source[layer]),
        rope_bases(config).index(config.rope_theta[layer]),
        layer < config.num_owners,
    )


def _layer(weights: TextWeights, number: int) -> Layer:
    layer = weights.layers[number]
    if layer is None:
        raise KernelError(f"layer {number} has no weights at hand, though the plan was checked")
    return layer


def _ple_sources(weights: TextWeights, layers: tuple[int, ...]) -> tuple[PleSource, ...]:
    sources = []
    for table in weights.ple:
        pairs = [
            (table.layers.index(layer), place)
            for place, layer in enumerate(layers)
            if layer in table.layers
        ]
        if pairs:
            slots, places = zip(*pairs, strict=True)
            sources.append(
                PleSource(table.matrix, len(table.layers), _index(slots), _index(places))
            )
    return tuple(sources)


def _index(numbers: tuple[int, ...]) -> Index:
    """A slice where the numbers are consecutive, which is cheaper to copy."""
    first, last = numbers[0], numbers[-1]
    consecutive = last - first + 1 == len(numbers)
    return slice(first, last + 1) if consecutive else np.array(numbers, np.intp)
