"""The ladder of the embedded model: order, families, what is given up last."""

from __future__ import annotations

from itertools import pairwise

import pytest

from matryo.elastic.ladder import Level, levels
from matryo.errors import PlanError
from matryo.loading import Model, load
from matryo.plan import Plan


@pytest.fixture(scope="module")
def model() -> Model:
    return load()


def ladder(model: Model, largest: str | Plan = "large", exact: bool = False) -> tuple[Level, ...]:
    return levels(
        model.config,
        model._opened.weights,
        model.plans,
        largest,
        kv="bf16",
        chunk=64,
        exact=exact,
    )


def test_sizes_get_cheaper_then_precision_then_context(model: Model) -> None:
    found = ladder(model)
    sizes = [level for level in found if level.kv == "bf16"]
    assert (sizes[0].name, sizes[-1].name) == ("large", "tiny")
    assert "medium" in [level.name for level in sizes] and len(sizes) > 4
    assert all(a.cost > b.cost and a.weight_bytes > b.weight_bytes for a, b in pairwise(sizes))
    leaner = found[len(sizes) :]
    assert [(one.kv, one.window) for one in leaner] == [("int8", 1024), ("int8", 512)]
    assert {one.plan for one in leaner} == {model.plans["tiny"]}
    assert leaner[0].kv_bytes(1000) < 0.6 * sizes[-1].kv_bytes(1000)
    assert leaner[1].kv_bytes(1000) == leaner[1].kv_bytes(512) < leaner[0].kv_bytes(1000)


def test_the_first_steps_stay_in_the_exact_family(model: Model) -> None:
    found = ladder(model)
    exact = [level.exact for level in found]
    assert exact == sorted(exact, reverse=True) and 2 < sum(exact) < len(exact)
    assert all(level.exact == level.plan.same_cache(found[0].plan) for level in found)
    only = ladder(model, exact=True)
    assert all(level.plan.same_cache(found[0].plan) for level in only)
    assert [one for one in only if one.kv == "bf16"] == [one for one in found if one.exact]


def test_all_levels_keep_the_same_layers_of_the_cache(model: Model) -> None:
    assert len({level.plan.owners for level in ladder(model)}) == 1


def test_nothing_is_larger_than_the_size_to_begin_with(model: Model) -> None:
    found = ladder(model, "medium")
    assert found[0].name == "medium" and "large" not in [level.name for level in found]
    assert [level.name for level in ladder(model, "tiny")] == ["tiny"] * 3


def test_the_bytes_are_those_of_the_files(model: Model) -> None:
    full = ladder(model)[0]
    cost = model.cost("large")
    tables = sum(table.matrix.data.nbytes for table in model._opened.weights.ple)
    assert full.cost == cost.bytes and full.weight_bytes == cost.stored_bytes - tables
    session = model.session("large", kv="bf16")
    list(session.generate([5, 6, 7] * 60, max_tokens=20))
    assert full.kv_bytes(len(session)) == pytest.approx(session.cache_bytes, rel=0.35)


def test_a_plan_of_another_model_is_refused(model: Model) -> None:
    with pytest.raises(PlanError, match="layers with K/V"):
        ladder(model, Plan((0, 1), (32, 32), 2))
    with pytest.raises(PlanError, match="exceeds"):
        ladder(model, Plan(tuple(range(8)), (4096,) * 8, 4))
