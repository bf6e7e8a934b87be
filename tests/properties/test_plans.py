"""Every plan is a prefix of one set of weights, and equals the smaller checkpoint that could be cut
out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from helpers.mixture import mixture_logits
from helpers.models import (
    F32,
    chunked,
    extend,
    new_cache,
    random_ids,
    same_pages,
    text_model,
    weights_of,
)
from helpers.random_weights import SMALL, config_of, random_state
from matryo.config import TextConfig
from matryo.errors import PlanError
from matryo.model import TextModel
from matryo.plan import Plan, full_plan
from properties.conftest import Models

CONFIG = config_of(SMALL)
TIED = {
    "max_examples": 25,
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@st.composite
def plans(draw: st.DrawFn, same_owners: bool = False) -> Plan:
    """Any plan the small model can run: producers 1 and 2 stay, widths are multiples of 32 up to
    128.
    """
    optional = [n for n in range(9) if n not in (1, 2) and (n > 2 or not same_owners)]
    kept = sorted({1, 2, *([0] if same_owners else []), *draw(st.sets(st.sampled_from(optional)))})
    widths = draw(st.lists(st.integers(1, 4), min_size=len(kept), max_size=len(kept)))
    return Plan(tuple(kept), tuple(32 * width for width in widths), 3)


def cut_out(plan: Plan) -> tuple[TextConfig, Mapping[str, F32]]:
    """The checkpoint of a plan: kept layers renumbered, FFN prefixes, slots of kept layers."""
    slots = np.concatenate([np.arange(n * 32, (n + 1) * 32) for n in plan.layers])
    small: dict[str, F32] = {}
    for name, value in random_state(CONFIG).items():
        if name.startswith("layers."):
            _, number, rest = name.split(".", 2)
            if int(number) not in plan.layers:
                continue
            place = plan.layers.index(int(number))
            if rest in ("mlp.gate_proj.weight", "mlp.up_proj.weight"):
                value = value[: plan.ffn_width[place]]
            elif rest == "mlp.down_proj.weight":
                value = value[:, : plan.ffn_width[place]]
            small[f"layers.{place}.{rest}"] = value
        elif name == "embed_tokens_per_layer.weight":
            small[name] = value[:, slots]
        elif name == "per_layer_model_projection.weight":
            small[name] = value[slots]
        else:
            small[name] = value
    changes: dict[str, Any] = {
        "num_hidden_layers": len(plan.layers),
        "num_kv_shared_layers": len(plan.layers) - len(plan.owners),
        "intermediate_size": list(plan.ffn_width),
        "layer_types": [SMALL["layer_types"][n] for n in plan.layers],
        "activation_sparsity_pattern": [
            SMALL["activation_sparsity_pattern"][n] for n in plan.layers
        ],
    }
    return config_of({**SMALL, **changes}), small


@given(
    plan=plans(), kind=st.sampled_from(["f32", "bf16", "q8", "q4"]), seed=st.integers(0, 1 << 30)
)
@settings(**TIED)  # type: ignore[arg-type]
def test_a_plan_is_the_checkpoint_cut_out(models: Models, plan: Plan, kind: str, seed: int) -> None:
    """Bit for bit, whatever the weights are stored as: groups of 32 columns divide every width."""
    config, tensors = cut_out(plan)
    small = TextModel(config, weights_of(config, tensors, "native", kind))
    ids = random_ids(np.random.default_rng(seed), 24)
    want = chunked(small, full_plan(config), ids, [15])
    assert np.array_equal(chunked(models(kind), plan.check(CONFIG), ids, [20]), want)


def test_the_full_plan_is_the_model(stored: TextModel, rng: np.random.Generator) -> None:
    """In one shell or in two: a full plan given as a plan of its own changes no bit."""
    ids, full = random_ids(rng, 24), full_plan(CONFIG)
    spelled = Plan.from_json({"layers": list(range(9)), "ffn_width": 128}, CONFIG)
    assert np.array_equal(chunked(stored, spelled, ids), chunked(stored, full, ids))


@given(first=plans(), second=plans(), seed=st.integers(0, 1 << 30))
@settings(**TIED)  # type: ignore[arg-type]
def test_same_cache_is_true_exactly_if_the_caches_are_the_same(
    models: Models, first: Plan, second: Plan, seed: int
) -> None:
    _check_same_cache(models("f32"), first, second, seed)


@given(first=plans(same_owners=True), data=st.data(), seed=st.integers(0, 1 << 30))
@settings(**TIED)  # type: ignore[arg-type]
def test_same_cache_at_its_border(
    models: Models, first: Plan, data: st.DataObject, seed: int
) -> None:
    """Plans that differ in one width only: below the last owner it matters, from there on it does
    not.
    """
    place = data.draw(st.integers(0, len(first.layers) - 1))
    width = data.draw(st.sampled_from([32, 64, 96, 128]))
    assume(width != first.ffn_width[place])
    widths = (*first.ffn_width[:place], width, *first.ffn_width[place + 1 :])
    second = Plan(first.layers, widths, 3)
    assert first.same_cache(second) is (first.layers[place] >= 2)
    _check_same_cache(models("f32"), first, second, seed)


def _check_same_cache(model: TextModel, first: Plan, second: Plan, seed: int) -> None:
    ids = random_ids(np.random.default_rng(seed), 20)
    caches = []
    for plan in (first, second):
        caches.append(new_cache(model, plan))
        extend(model, plan, caches[-1], ids, "none")
    same = first.same_cache(second)
    assert same is second.same_cache(first) is same_pages(*caches)
    if same:
        alone = extend(model, second, caches[1], [5])
        assert np.array_equal(extend(model, second, caches[0], [5]), alone)


@given(data=st.data(), seed=st.integers(0, 1 << 30))
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_switching_between_tokens_is_the_mixture(
    models: Models, data: st.DataObject, seed: int
) -> None:
    """Each token of a session may have its own plan; the result is what computing the mixture
    directly gives.
    """
    model, ids = models("f32"), random_ids(np.random.default_rng(seed), 16)
    choices = data.draw(st.lists(plans(same_owners=True), min_size=2, max_size=3))
    which = data.draw(st.lists(st.sampled_from(choices), min_size=16, max_size=16))
    cache = new_cache(model, which[0])
    got = np.concatenate(
        [extend(model, plan, cache, ids[t : t + 1]) for t, plan in enumerate(which)]
    )
    assert np.abs(got - mixture_logits(text_model("reference"), ids, which)).max() < 5e-4


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_illegal_plans_are_refused_with_a_reason(data: st.DataObject) -> None:
    """One thing of a legal plan is made wrong."""
    plan = data.draw(plans())
    layers, widths = list(plan.layers), list(plan.ffn_width)
    place = data.draw(st.integers(0, len(layers) - 1))
    fault = data.draw(st.sampled_from(["producer", "group", "order", "layer", "width", "count"]))
    if fault == "producer":
        index = layers.index(data.draw(st.sampled_from([1, 2])))
        del layers[index], widths[index]
    elif fault == "group":
        widths[place] -= data.draw(st.integers(1, 31))
    elif fault == "order":
        assume(len(layers) > 1)
        layers.reverse()
    elif fault == "layer":
        layers[-1] = data.draw(st.integers(9, 1000))
        assume(set(layers) >= {1, 2})
    elif fault == "width":
        widths[place] = data.draw(st.integers(5, 1000)) * 32
    else:
        widths.pop()
    reasons = {
        "producer": "cannot be skipped",
        "group": "multiple of 32",
        "order": "ascending",
        "layer": "does not exist",
        "width": "exceeds the 128",
        "count": "give one each|keeps none|at least one",
    }
    with pytest.raises(PlanError, match=reasons[fault]):
        Plan(tuple(layers), tuple(widths), 3).check(CONFIG)
