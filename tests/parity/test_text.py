"""Our logits are those of transformers, for every kind of slice and every way to feed the tokens.

Weights and K/V are float32 here. Two correct float32 implementations differ by about 1e-4 on logits of magnitude 25.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.runs import CHUNK, chunked, expected, extend, new_cache, random_ids
from parity.conftest import PLAN_NAMES, plans_of
from transformers import Gemma3nForCausalLM

from matryo.model import Batch, TextModel

TOLERANCE = 5e-4
Slices = Callable[[str], Gemma3nForCausalLM]


def test_the_oracle_exercises_the_non_linearities(tiny_hf_model: Gemma3nForCausalLM, rng: np.random.Generator) -> None:
    shares: list[float] = []

    def hook(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        shares.append(float((output > 0).float().mean()))

    handle = tiny_hf_model.model.layers[0].mlp.act_fn.register_forward_hook(hook)
    logits = expected(tiny_hf_model, random_ids(rng, 40))
    handle.remove()
    assert np.abs(logits).max() > 20 and logits.std() > 5  # the soft cap of 30 bites
    assert 0.02 < shares[0] < 0.1  # gates are cut, and some survive


@pytest.mark.parametrize("name", PLAN_NAMES)
def test_whole(ours: TextModel, slices: Slices, rng: np.random.Generator, name: str) -> None:
    ids = random_ids(rng, 40)
    got = chunked(ours, plans_of(ours)[name], ids, [])
    assert np.abs(got - expected(slices(name), ids)).max() < TOLERANCE


@pytest.mark.parametrize("name", PLAN_NAMES)
def test_token_by_token(ours: TextModel, slices: Slices, rng: np.random.Generator, name: str) -> None:
    ids = random_ids(rng, 40)
    got = chunked(ours, plans_of(ours)[name], ids, [1] * 39)
    assert np.abs(got - expected(slices(name), ids)).max() < TOLERANCE


@pytest.mark.parametrize("name", ["full", "e2b"])
def test_every_split(ours: TextModel, slices: Slices, rng: np.random.Generator, name: str) -> None:
    ids, plan = random_ids(rng, 24), plans_of(ours)[name]
    want = expected(slices(name), ids)
    for first in range(1, 24):
        assert np.abs(chunked(ours, plan, ids, [first]) - want).max() < TOLERANCE


def test_long_enough_to_wrap_the_rings(ours: TextModel, slices: Slices, rng: np.random.Generator) -> None:
    ids = random_ids(rng, 250)
    got = chunked(ours, plans_of(ours)["full"], ids, [CHUNK, 3, CHUNK, 41])
    assert np.abs(got - expected(slices("full"), ids)).max() < TOLERANCE


@pytest.mark.parametrize("name", PLAN_NAMES)
@pytest.mark.parametrize("rows", ["last", [0, 5, 11], [11, 2]])
def test_rows_whose_logits_are_wanted(
    ours: TextModel, slices: Slices, rng: np.random.Generator, name: str, rows: str | list[int]
) -> None:
    """Everything else leaves at the last owner; later tokens must not notice."""
    ids, plan = random_ids(rng, 30), plans_of(ours)[name]
    want, cache = expected(slices(name), ids), new_cache(ours, plan)
    assert extend(ours, plan, cache, ids[:10], "none") is None
    got = extend(ours, plan, cache, ids[10:22], rows)
    chosen = [11] if rows == "last" else rows
    assert np.abs(got - want[10:22][chosen]).max() < TOLERANCE
    assert np.abs(extend(ours, plan, cache, ids[22:], "all") - want[22:]).max() < TOLERANCE


@pytest.mark.parametrize("name", ["full", "e2b"])
def test_sequences_together_and_left_padded(
    ours: TextModel, slices: Slices, rng: np.random.Generator, name: str
) -> None:
    """transformers pads on the left and masks; we leave the padding out."""
    plan, model = plans_of(ours)[name], slices(name)
    prompts = [random_ids(rng, count) for count in (13, 20, 7)]
    padded = torch.zeros(3, 20, dtype=torch.long)
    mask = torch.zeros(3, 20, dtype=torch.long)
    for row, ids in enumerate(prompts):
        padded[row, 20 - len(ids) :] = torch.tensor(ids)
        mask[row, 20 - len(ids) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        want = model(padded, attention_mask=mask, position_ids=positions, use_cache=False).logits.numpy()
    caches = [new_cache(ours, plan) for _ in prompts]
    state = ours.new_state(CHUNK)
    for cache, ids in zip(caches, prompts, strict=True):
        cache.reserve(len(ids))
    got = ours.forward(state, plan, Batch.of([(i, 0, c) for i, c in zip(prompts, caches, strict=True)]), "last")
    assert got is not None and np.abs(got - want[:, -1]).max() < TOLERANCE
    for cache, ids in zip(caches, prompts, strict=True):
        cache.commit(len(ids))
        cache.reserve(1)
    step = Batch.of([([7 + n], c.length, c) for n, c in enumerate(caches)])
    got = ours.forward(state, plan, step, "all")
    for row, ids in enumerate(prompts):
        alone = expected(model, np.append(ids, 7 + row))[-1]
        assert got is not None and np.abs(got[row] - alone).max() < TOLERANCE


def test_embeddings_beside_ids(ours: TextModel, tiny_hf_model: Gemma3nForCausalLM, rng: np.random.Generator) -> None:
    """Media features replace embeddings; the ids still choose the per-layer inputs, row 0 for media ids."""
    ids = random_ids(rng, 24, 512)
    rows = np.array([3, 4, 5, 17], np.int32)
    ids[rows] = [512, 513, 543, 530]
    features = rng.standard_normal((4, 96)).astype(np.float32)
    inner = tiny_hf_model.model
    with torch.no_grad():
        embeddings = inner.embed_tokens(torch.tensor(ids)[None].long())
        embeddings[0, torch.tensor(rows).long()] = torch.tensor(features)
        ple = inner.get_per_layer_inputs(torch.tensor(ids)[None].long())
        hidden = inner(inputs_embeds=embeddings, per_layer_inputs=ple, use_cache=False).last_hidden_state
        head = hidden @ inner.embed_tokens.weight.T
        want = (30.0 * torch.tanh(head / 30.0))[0].numpy()
    plan = plans_of(ours)["full"]
    got = extend(ours, plan, new_cache(ours, plan), ids, "all", embeddings=features, rows=rows)
    assert np.abs(got - want).max() < TOLERANCE
    everything = embeddings[0].numpy()
    got = extend(ours, plan, new_cache(ours, plan), ids, "all", embeddings=everything)
    assert np.abs(got - want).max() < TOLERANCE


def test_exact_family_shares_a_cache(ours: TextModel, rng: np.random.Generator) -> None:
    """Skipping readers, or other widths from the last owner on, leave every cached bit as it is."""
    plans, ids = plans_of(ours), random_ids(rng, 30)
    widths = (*plans["full"].ffn_width[:4], 32, *([64] * 10))
    above = type(plans["full"])(tuple(range(15)), widths, 5)
    base = new_cache(ours, plans["full"])
    extend(ours, plans["full"], base, ids, "none")
    for plan, same in ((plans["skip"], True), (above, True), (plans["e2b"], False)):
        assert plans["full"].same_cache(plan) is same
        other = new_cache(ours, plan)
        extend(ours, plan, other, ids, "last")
        equal = all(np.array_equal(a, other.export()[name]) for name, a in base.export().items())
        assert equal is same
    alone = chunked(ours, plans["skip"], np.append(ids, 3).astype(np.int32), [30])[-1]
    handed = extend(ours, plans["skip"], base, np.array([3], np.int32))
    assert np.array_equal(handed[0], alone)
