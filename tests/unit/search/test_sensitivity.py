"""Single changes, and the chain that gives up first what costs least a parameter."""

from __future__ import annotations

from itertools import pairwise

from matryo.evaluate.intervals import Interval
from matryo.search.sensitivity import Change, chain, measure_changes, single_changes, thinned
from matryo.search.space import Point, Space


def harm(space: Space, point: Point) -> Interval:
    """Later layers matter more; skipping one costs twice what narrowing does."""
    lost = 0.0
    for layer, width in enumerate(point):
        most = space.widths[layer][-1]
        lost += (layer + 1) * ((most - width) / most + (width == 0))
    return Interval(lost, lost, lost)


def changes_of(space: Space) -> list[Change]:
    return measure_changes(space, lambda point: harm(space, point), lambda: True)


def test_every_layer_is_changed_alone(space: Space) -> None:
    whole = space.point(space.largest)
    found = list(single_changes(space))
    for layer, width, point in found:
        assert width != whole[layer] and point == space.changed(whole, {layer: width})
    places = {(layer, width) for layer, width, _ in found}
    assert len(places) == len(found)
    assert {layer for layer, width in places if width == 0} == space.skippable
    assert {layer for layer, width in places if width} == set(space.largest.layers)


def test_time_ends_it_and_what_is_known_stays(space: Space) -> None:
    allowed = iter([True, True, True, False])
    found = measure_changes(space, lambda point: harm(space, point), lambda: next(allowed))
    assert len(found) == 3 and all(change.saved > 0 for change in found)


def test_the_chain_goes_down_step_by_step_and_spares_what_matters(space: Space) -> None:
    points = chain(space, changes_of(space))
    assert points[0] == space.point(space.largest)
    for before, after in pairwise(points):
        assert space.parameters(after) < space.parameters(before)
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    first = next(n for n, (a, b) in enumerate(zip(*points[:2], strict=True)) if a != b)
    assert first == 0  # the layer that matters least
    last = space.largest.layers[-1]
    assert points[-1][last] == 0 and points[len(points) // 2][last] == space.widths[last][-1]


def test_without_measurements_there_is_no_step(space: Space) -> None:
    assert chain(space, []) == [space.point(space.largest)]


def test_a_chain_is_thinned_evenly_and_keeps_its_ends(space: Space) -> None:
    points = chain(space, changes_of(space))
    few = thinned(points, space, 5)
    assert few[0] == points[0] and few[-1] == points[-1] and 3 <= len(few) <= 5
    assert thinned(points[:1], space, 5) == points[:1]
