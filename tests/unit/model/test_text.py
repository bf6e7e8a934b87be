"""The forward pass: what it accepts, what it reuses, and how a plan is resolved. Its numbers are
the parity tests'.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.models import extend, new_cache, ops_of, random_ids, text_model
from helpers.packing import PlainMatrix, packed_tensors
from helpers.random_weights import SMALL, config_of, random_state
from matryo.config import TextConfig
from matryo.errors import CheckpointError, InputError, PlanError
from matryo.kernels import reference
from matryo.model import Batch, State, TextModel, text
from matryo.model.route import Route, resolve
from matryo.plan import Plan, full_plan, presets
from matryo.weights import TextWeights, build_weights

CONFIG = config_of(SMALL)
PLANS = presets(CONFIG)


@pytest.fixture(scope="session")
def model() -> TextModel:
    return text_model()


def one_shell_model() -> TextModel:
    """Only the first shell's tensors at hand, as after loading `shell-0` alone."""
    shells = [PLANS["e2b"]]
    tensors = packed_tensors(random_state(CONFIG), CONFIG, shells)
    return TextModel(CONFIG, build_weights(CONFIG, tensors, shells, PlainMatrix), reference)


def test_the_first_shell_runs_alone_and_names_what_is_missing() -> None:
    small = one_shell_model()
    ids = np.arange(10, dtype=np.int32)
    whole = text_model("reference")
    want = extend(whole, PLANS["e2b"], new_cache(whole, PLANS["e2b"]), ids)
    got = extend(small, PLANS["e2b"], new_cache(small, PLANS["e2b"]), ids)
    np.testing.assert_allclose(got, want, atol=1e-4)
    with pytest.raises(
        PlanError, match=r"needs 128 FFN units of layer 0, 64 are here: .*outer shell"
    ):
        small.prepare(PLANS["full"])
    with pytest.raises(PlanError, match="outer shell is missing"):
        extend(small, PLANS["full"], new_cache(small, PLANS["full"]), ids)


def test_pages_of_the_ple_tables_are_given_back_after_every_few_hundred_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They stay out of memory: neither a long prompt nor a long answer keeps what it read."""
    forgotten: list[str] = []
    tensors = packed_tensors(random_state(CONFIG), CONFIG, [PLANS["e2b"], PLANS["full"]])
    weights = build_weights(
        CONFIG, tensors, [PLANS["e2b"], PLANS["full"]], PlainMatrix, forgotten.append
    )
    model, plan = TextModel(CONFIG, weights, reference), PLANS["e2b"]
    monkeypatch.setattr(text, "PLE_ROWS_MAPPED", 5)
    cache = new_cache(model, plan)
    for _ in range(4):
        extend(model, plan, cache, [1])
    assert forgotten == []
    for count, times in ((1, 1), (4, 1), (7, 2)):
        extend(model, plan, cache, [1] * count)
        assert forgotten == [table.name for table in weights.ple] * times


def test_only_the_plans_used_last_stay_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[Plan] = []

    def counted(config: TextConfig, weights: TextWeights, plan: Plan, handles: Any) -> Route:
        resolved.append(plan)
        return resolve(config, weights, plan, handles)

    monkeypatch.setattr(text, "resolve", counted)
    monkeypatch.setattr(text, "MAX_ROUTES", 3)
    full = PLANS["full"]
    plans = [Plan(full.layers, (32 * n, *full.ffn_width[1:]), full.num_owners) for n in (1, 2, 3)]
    model = text_model("reference")
    for plan in (full, *plans[:2], full, plans[2]):  # plans[0] was used longest ago
        model.prepare(plan)
    assert resolved == [full, *plans]
    for plan in (full, plans[1], plans[2]):
        model.prepare(plan)
    assert resolved == [full, *plans]
    model.prepare(plans[0])
    assert resolved == [full, *plans, plans[0]]


def test_a_route_knows_every_layer_once(model: TextModel) -> None:
    plan = Plan((1, 2, 4, 8), (32, 64, 96, 128), 3)
    handles = [f"layer {n}" for n in range(9)]
    route = resolve(CONFIG, model.weights, plan, handles)
    assert [step.handle for step in route.whole.steps] == [
        "layer 1",
        "layer 2",
        "layer 4",
        "layer 8",
    ]
    assert [step.width for step in route.whole.steps] == [32, 64, 96, 128]
    assert [step.handle for step in route.lower.steps] == ["layer 1"]
    assert [step.handle for step in route.upper.steps] == ["layer 2", "layer 4", "layer 8"]
    # Layer 4 slides and reads layer 1, the first table of this plan; layer 8 is full and reads 2.
    assert [step.table for step in route.whole.steps] == [0, 1, 0, 1]
    assert [step.owns_kv for step in route.whole.steps] == [True, True, False, False]
    assert [step.angle for step in route.whole.steps] == [0, 1, 0, 1]


def test_ple_slots_of_two_tables_come_in_layer_order(model: TextModel) -> None:
    """`e2b` is the first shell: the slots of layers it lacks lie in a second table."""
    tables = model.weights.ple
    assert sorted(layer for table in tables for layer in table.layers) == list(range(9))
    route = resolve(CONFIG, model.weights, PLANS["full"], [None] * 9)
    places: dict[int, int] = {}
    for table, source in zip(tables, route.whole.ple_sources, strict=True):
        slots, where = (np.arange(64)[index] for index in (source.slots, source.places))
        places.update(
            {int(place): table.layers[slot] for place, slot in zip(where, slots, strict=True)}
        )
    assert places == {layer: layer for layer in range(9)}


@pytest.mark.parametrize("rows", [[3], [-1], [[0]], "first", [0, 99]])
def test_logit_rows_that_do_not_exist(model: TextModel, rows: Any) -> None:
    cache = new_cache(model, PLANS["full"])
    cache.reserve(3)
    batch = Batch.of([([1, 2, 3], 0, cache)])
    with pytest.raises(InputError, match="logit"):
        model.forward(model.new_state(8), PLANS["full"], batch, rows)


def test_passes_larger_than_the_state(model: TextModel) -> None:
    cache = new_cache(model, PLANS["full"])
    cache.reserve(9)
    with pytest.raises(InputError, match="9 rows in one pass; this state was made for 8"):
        model.forward(model.new_state(8), PLANS["full"], Batch.of([(list(range(9)), 0, cache)]))


def test_positions_without_room(model: TextModel) -> None:
    cache = new_cache(model, PLANS["full"])
    with pytest.raises(InputError, match="room up to 0"):
        model.forward(model.new_state(8), PLANS["full"], Batch.of([([1], 0, cache)]))


def test_a_pass_does_not_move_the_cache(model: TextModel) -> None:
    cache, state, plan = new_cache(model, PLANS["full"]), model.new_state(8), PLANS["full"]
    cache.reserve(3)
    batch = Batch.of([([1, 2, 3], 0, cache)])
    first = model.forward(state, plan, batch, "all")
    assert first is not None and cache.length == 0
    first = first.copy()
    again = model.forward(state, plan, batch, "all")
    assert again is not None and np.array_equal(again, first)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_that_are_no_numbers(model: TextModel, bad: float) -> None:
    values = np.zeros((1, 64), np.float32)
    values[0, 5] = bad
    with pytest.raises(CheckpointError, match="not numbers"):
        extend(model, PLANS["full"], new_cache(model, PLANS["full"]), [1], embeddings=values)


def test_scratch_does_not_leak_between_passes(model: TextModel, rng: np.random.Generator) -> None:
    """One state serves passes of any size in any order; what it held before does not matter."""
    state, plan = model.new_state(64), PLANS["full"]
    for count in (40, 1, 16, 17, 3, 64, 2, 40):
        ids = random_ids(rng, count)
        for rows in ("last", "all"):
            cache = new_cache(model, plan)
            cache.reserve(count)
            out = model.forward(state, plan, Batch.of([(ids, 0, cache)]), rows)
            want = extend(model, plan, new_cache(model, plan), ids, rows)
            assert out is not None and np.array_equal(out, want)


def test_views_are_kept_only_for_few_rows() -> None:
    state = State(CONFIG, 64)
    assert state.views(16) is state.views(16) and state.views(1) is not state.views(2)
    large = state.views(40)
    assert state.views(40) is large and state.spare_views(20) is not state.views(20)
    state.release()
    assert state.views(40) is not large
    views = state.views(3)
    assert views.streams.shape == (4, 3, 64) and views.others.base is views.streams
    assert np.shares_memory(views.embedding, views.streams[0])
    assert state.logits(16, 10).base is state.logits(2, 10).base
    assert state.logits(17, 10).base is None


def test_handles_are_made_once_for_all_plans() -> None:
    class Counting:
        made = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(reference, name)

        def layer_handle(self, layer: Any) -> Any:
            Counting.made += 1
            return layer

    weights = text_model("reference").weights
    model = TextModel(CONFIG, weights, Counting())
    for width in (32, 64, 96, 128):
        model.prepare(Plan(tuple(range(9)), (width,) * 9, 3))
    model.prepare(full_plan(CONFIG))
    assert Counting.made == 9 and ops_of("reference") is reference
