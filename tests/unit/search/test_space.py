"""The plans a search may try: all of them can run, and the published patterns are among them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from matryo.errors import InputError
from matryo.loading import Model
from matryo.search.patterns import patterns
from matryo.search.space import Space, with_middles


def test_widths_are_the_rungs_and_what_is_between(space: Space, model: Model) -> None:
    assert space.smallest == model.plan("small") and space.largest == model.plan("large")
    for layer in space.largest.layers:
        rungs = {
            dict(zip(plan.layers, plan.ffn_width, strict=True)).get(layer)
            for plan in map(model.plan, model.plans)
        } - {None}
        assert set(space.widths[layer]) >= rungs
        assert all(width % 32 == 0 for width in space.widths[layer])
    assert with_middles(frozenset({32, 160, 192})) == (32, 96, 160, 192)


def test_readers_may_be_skipped_and_families_are_below_the_last_owner(space: Space) -> None:
    config = space.config
    assert space.skippable == set(range(config.num_owners, config.num_layers))
    assert 0 in space.options(config.num_owners) and 0 not in space.options(0)
    assert list(space.lower) == list(range(config.num_owners - 1))
    whole = space.point(space.largest)
    changed = space.changed(whole, {layer: space.options(layer)[0] for layer in space.upper})
    assert space.plan(changed).same_cache(space.largest)
    other = space.changed(whole, {0: space.widths[0][0]})
    assert not space.plan(other).same_cache(space.largest)


def test_points_and_plans_are_the_same_thing(space: Space, model: Model) -> None:
    for name in model.plans:
        assert space.plan(space.point(model.plan(name))) == model.plan(name)


def test_patterns_are_different_plans_that_can_run(space: Space, model: Model) -> None:
    found = patterns(space)
    assert len(set(found)) == len(found) >= 8
    sizes = [space.parameters(point) for point in found]
    assert sizes == sorted(sizes)
    assert sizes[0] >= space.parameters(space.point(space.smallest))
    for point in found:
        assert space.largest.contains(model.plan(space.plan(point)))
    assert space.point(space.smallest) in found and space.point(space.largest) in found
    # Global layers wide, the others narrow, everything kept.
    assert any(
        all(
            (point[layer] == space.widths[layer][-1]) == (not space.config.window[layer])
            for layer in space.largest.layers
        )
        for point in found
    )


def test_a_model_of_one_size_cannot_be_searched(model: Model) -> None:
    full = model.plan("large")
    one_size = SimpleNamespace(
        config=model.config,
        name="one",
        plans={"full": full},
        default_plan=full,
        plan=lambda name: full,
    )
    with pytest.raises(InputError, match="one has one size"):
        Space.of(one_size)  # type: ignore[arg-type]
