"""Our logits are those of transformers, for every kind of slice and every way to feed the tokens.

Weights and K/V are float32 unless a test says otherwise. Two correct float32 implementations differ
by about 1e-4 on logits of magnitude 25.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from transformers import Gemma3nForCausalLM

from helpers.models import CHUNK, F32, chunked, extend, new_cache, random_ids
from helpers.runs import expected, expected_from_embeddings, in_bf16, left_padded, our_model
from matryo.model import Batch, TextModel
from parity.conftest import PLAN_NAMES, Oracle, Slices, plans_of

TOLERANCE = 5e-4


def test_the_oracle_exercises_the_non_linearities(
    tiny_hf_model: Gemma3nForCausalLM, rng: np.random.Generator
) -> None:
    active: list[float] = []

    def note_active(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        active.append(float((output > 0).float().mean()))

    handles = [
        layer.mlp.act_fn.register_forward_hook(note_active)
        for layer in tiny_hf_model.model.layers[:3]
    ]
    tokens = torch.tensor(random_ids(rng, 40))[None].long()
    with torch.no_grad():
        out = tiny_hf_model(tokens, use_cache=False, output_attentions=True)
    for handle in handles:
        handle.remove()
    assert out.logits.abs().max() > 20 and out.logits.std() > 5  # the soft cap of 30 bites
    assert all(0.02 < share < 0.1 for share in active)  # gates are cut, and some survive
    entropies = [float(-(a * (a + 1e-30).log()).sum(-1)[0, :, 10:].mean()) for a in out.attentions]
    assert all(0.6 < entropy < 2.0 for entropy in entropies)  # attention chooses, but not one key
    assert all(
        layer.altup.prediction_coefs.weight.std() > 0.03 for layer in tiny_hf_model.model.layers
    )


@pytest.mark.parametrize("name", PLAN_NAMES)
def test_whole_and_token_by_token(
    ours: TextModel, oracle: Oracle, rng: np.random.Generator, name: str
) -> None:
    ids, plan = random_ids(rng, 30), plans_of(ours.config)[name]
    want = oracle.logits(name, ids)
    assert np.abs(chunked(ours, plan, ids) - want).max() < TOLERANCE
    assert np.abs(chunked(ours, plan, ids, [1] * 30) - want).max() < TOLERANCE


@pytest.mark.parametrize("name", ["full", "e2b"])
def test_every_split(ours: TextModel, oracle: Oracle, rng: np.random.Generator, name: str) -> None:
    ids, plan = random_ids(rng, 18), plans_of(ours.config)[name]
    want = oracle.logits(name, ids)
    for first in range(1, 18):
        assert np.abs(chunked(ours, plan, ids, [first]) - want).max() < TOLERANCE


def test_long_enough_to_wrap_the_rings(
    ours: TextModel, oracle: Oracle, rng: np.random.Generator
) -> None:
    """Rings hold the window of 8, a chunk of 64 and a page: three pages, 192 tokens."""
    ids, plan = random_ids(rng, 200), plans_of(ours.config)["full"]
    cache, parts = new_cache(ours, plan), []
    for start, end in ((0, 64), (64, 67), (67, 131), (131, 195), (195, 196), (196, 200)):
        parts.append(extend(ours, plan, cache, ids[start:end], "last"))
    want = oracle.logits("full", ids)[[63, 66, 130, 194, 195, 199]]
    assert np.abs(np.concatenate(parts) - want).max() < TOLERANCE


@pytest.mark.parametrize("name", ["full", "e2b"])
def test_greedy_decoding_chooses_the_same_tokens(
    ours: TextModel, oracle: Oracle, rng: np.random.Generator, name: str
) -> None:
    """60 tokens with both sides' caches, past the window and a page."""
    prompt, plan = random_ids(rng, 12), plans_of(ours.config)[name]
    cache = new_cache(ours, plan)
    logits, tokens = extend(ours, plan, cache, prompt, "last"), list[int]()
    for _ in range(60):
        tokens.append(int(logits[-1].argmax()))
        logits = extend(ours, plan, cache, tokens[-1:], "last")
    assert tokens == oracle.greedy(name, prompt, 60)
    everything = np.concatenate([prompt, tokens]).astype(np.int32)
    assert np.abs(logits - oracle.logits(name, everything)[-1]).max() < TOLERANCE


@pytest.mark.parametrize("name", PLAN_NAMES)
@pytest.mark.parametrize("rows", ["last", [11, 2, 5]])
def test_rows_whose_logits_are_wanted(
    ours: TextModel,
    oracle: Oracle,
    rng: np.random.Generator,
    name: str,
    rows: Literal["last"] | list[int],
) -> None:
    """Everything else leaves at the last owner; later tokens must not notice."""
    ids, plan = random_ids(rng, 30), plans_of(ours.config)[name]
    want, cache = oracle.logits(name, ids), new_cache(ours, plan)
    assert not len(extend(ours, plan, cache, ids[:10], "none"))
    got = extend(ours, plan, cache, ids[10:22], rows)
    chosen = [11] if isinstance(rows, str) else rows
    assert np.abs(got - want[10:22][chosen]).max() < TOLERANCE
    assert np.abs(extend(ours, plan, cache, ids[22:]) - want[22:]).max() < TOLERANCE


@pytest.mark.parametrize("name", ["full", "e2b"])
def test_sequences_together_and_left_padded(
    ours: TextModel, slices: Slices, oracle: Oracle, rng: np.random.Generator, name: str
) -> None:
    """transformers pads on the left and masks; we leave the padding out."""
    plan, model = plans_of(ours.config)[name], slices(name)
    prompts = [random_ids(rng, count) for count in (13, 20, 7)]
    padded, arguments = left_padded(prompts)
    with torch.no_grad():
        want = model(padded, use_cache=False, **arguments).logits.numpy()
    caches, state = [new_cache(ours, plan) for _ in prompts], ours.new_state(CHUNK)
    for cache, ids in zip(caches, prompts, strict=True):
        cache.reserve(len(ids))
    batch = Batch.of([(ids, 0, cache) for ids, cache in zip(prompts, caches, strict=True)])
    got = _copied(ours.forward(state, plan, batch, "all"))
    start = 0
    for row, (cache, ids) in enumerate(zip(caches, prompts, strict=True)):
        assert np.abs(got[start : start + len(ids)] - want[row, 20 - len(ids) :]).max() < TOLERANCE
        start += len(ids)
        cache.commit(len(ids))
        cache.reserve(1)
    step = Batch.of([([7 + row], cache.length, cache) for row, cache in enumerate(caches)])
    got = _copied(ours.forward(state, plan, step, "all"))
    for row, ids in enumerate(prompts):
        alone = oracle.logits(name, np.append(ids, 7 + row).astype(np.int32))[-1]
        assert np.abs(got[row] - alone).max() < TOLERANCE


def _copied(logits: F32 | None) -> F32:
    assert logits is not None
    return logits.copy()


def test_embeddings_beside_ids(
    ours: TextModel, tiny_hf_model: Gemma3nForCausalLM, rng: np.random.Generator
) -> None:
    """Media features replace embeddings; the ids still choose the per-layer inputs, row 0 for media
    ids.
    """
    ids, rows = random_ids(rng, 24, 512), np.array([3, 4, 5, 17], np.int32)
    ids[rows] = [512, 513, 543, 530]
    features = rng.standard_normal((4, 96)).astype(np.float32)
    want, everything = expected_from_embeddings(tiny_hf_model, ids, rows, features)
    plan = plans_of(ours.config)["full"]
    got = extend(ours, plan, new_cache(ours, plan), ids, embeddings=features, rows=rows)
    assert np.abs(got - want).max() < TOLERANCE
    got = extend(ours, plan, new_cache(ours, plan), ids, embeddings=everything)
    assert np.abs(got - want).max() < TOLERANCE
    cache = new_cache(ours, plan)
    extend(ours, plan, cache, ids[:4], "none", embeddings=features[:1], rows=rows[:1])
    got = extend(ours, plan, cache, ids[4:], "last", embeddings=features[1:], rows=rows[1:] - 4)
    assert np.abs(got - want[-1]).max() < TOLERANCE


def test_ids_of_media_tokens_read_the_multimodal_table(
    backend: str, tiny_hf_model: Gemma3nForCausalLM, rng: np.random.Generator
) -> None:
    """A full checkpoint has an embedding for each media id; it is not scaled as those of text
    are.
    """
    table = rng.standard_normal((32, 96)).astype(np.float32)
    model = our_model(tiny_hf_model, backend, multimodal=table)
    ids, rows = random_ids(rng, 20, 512), np.array([0, 9, 19], np.int32)
    ids[rows] = [543, 512, 527]
    want, _ = expected_from_embeddings(tiny_hf_model, ids, rows, table[ids[rows] - 512])
    assert np.abs(chunked(model, plans_of(model.config)["full"], ids) - want).max() < TOLERANCE


def test_bf16_weights(
    backend: str, tiny_hf_model: Gemma3nForCausalLM, rng: np.random.Generator
) -> None:
    """With bf16 weights our arithmetic is the float32 one; what bf16 K/V add is less than bf16
    costs the reference.
    """
    ids = random_ids(rng, 40)
    rounded, exact = in_bf16(tiny_hf_model)
    want = expected(exact, ids)
    own_error = np.abs(expected(rounded, ids) - want)
    ours = our_model(exact, backend, "bf16")
    plan = plans_of(ours.config)["full"]
    assert np.abs(chunked(ours, plan, ids) - want).max() < TOLERANCE
    error = np.abs(chunked(ours, plan, ids, [7, 20], kv_kind="bf16") - want)
    assert error.mean() < 0.5 * own_error.mean() and error.max() < own_error.max()
