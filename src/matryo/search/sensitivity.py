"""What each layer is worth: the model with one layer narrowed, or skipped, alone.

In: a space and a way to measure a plan. Out: `Change`s with confidence intervals, and from them a
chain of ever smaller plans that gives up first what costs least quality a parameter: the beginning
of the search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matryo.evaluate.intervals import Interval
from matryo.search.space import Point, Space


@dataclass(frozen=True, slots=True)
class Change:
    """One layer at another width than in the largest plan; 0 = skipped.

    worse: how much quality is lost, in the metric's unit, positive if it is · saved: parameters
    """

    layer: int
    width: int
    worse: Interval
    saved: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "layer": self.layer,
            "width": self.width,
            "worse": self.worse.to_json(),
            "saved_parameters": self.saved,
        }


def single_changes(space: Space) -> Iterator[tuple[int, int, Point]]:
    """(layer, width, point) of every layer at its smallest width, and without it if it may go."""
    whole = space.point(space.largest)
    for layer in space.largest.layers:
        for width in sorted({space.options(layer)[0], space.widths[layer][0]}, reverse=True):
            if width != whole[layer]:
                yield layer, width, space.changed(whole, {layer: width})


def measure_changes(
    space: Space, lost: Callable[[Point], Interval], may_go_on: Callable[[], bool]
) -> list[Change]:
    """All single changes, as far as time allows. lost: the quality lost at a point."""
    whole = space.parameters(space.point(space.largest))
    found = []
    for layer, width, point in single_changes(space):
        if not may_go_on():
            break
        found.append(Change(layer, width, lost(point), whole - space.parameters(point)))
    return found


def chain(space: Space, changes: Sequence[Change]) -> list[Point]:
    """Points from the largest to the smallest, one step smaller each.

    Harms are taken to add up, and a width between two measured ones to cost its share: the search
    corrects both.
    """
    point = space.point(space.largest)
    points = [point]
    steps = _steps(space, changes)
    while steps:
        layer = min(steps, key=lambda one: steps[one][0][1])
        (width, _), *rest = steps[layer]
        point = space.changed(point, {layer: width})
        points.append(point)
        if rest:
            steps[layer] = rest
        else:
            del steps[layer]
    return points


def _steps(space: Space, changes: Sequence[Change]) -> dict[int, list[tuple[int, float]]]:
    """layer -> (width, harm a parameter) of its steps, from wide to narrow to skipped."""
    found: dict[int, list[tuple[int, float]]] = {}
    by_place = {(change.layer, change.width): change for change in changes}
    for layer in space.largest.layers:
        narrow = by_place.get((layer, space.widths[layer][0]))
        steps: list[tuple[int, float]] = []
        if narrow is not None:
            rate = narrow.worse.value / narrow.saved
            steps += [(width, rate) for width in reversed(space.widths[layer][:-1])]
        skipped = by_place.get((layer, 0))
        if skipped is not None:
            before = (narrow.worse.value, narrow.saved) if narrow is not None else (0.0, 0)
            harm, saved = skipped.worse.value - before[0], skipped.saved - before[1]
            steps.append((0, harm / saved))
        if steps:
            found[layer] = steps
    return found


def thinned(points: Sequence[Point], space: Space, count: int) -> list[Point]:
    """At most `count` of a chain, evenly spaced in parameters; the ends stay."""
    sizes = [space.parameters(point) for point in points]
    wanted = [sizes[0] + (sizes[-1] - sizes[0]) * n / max(1, count - 1) for n in range(count)]
    chosen = {min(range(len(points)), key=lambda i: abs(sizes[i] - size)) for size in wanted}
    return [points[index] for index in sorted(chosen)]
