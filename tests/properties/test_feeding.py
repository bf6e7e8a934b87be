"""However tokens are fed, the bits are the same: whole, in chunks, one by one, beside others, on
any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest

from helpers.models import CHUNK, F32, I32, chunked, extend, new_cache, random_ids, same_pages
from matryo.model import Batch, KVCache, TextModel
from matryo.plan import Plan, presets

PLANS = ["full", "e2b"]


def plan_of(model: TextModel, name: str) -> Plan:
    return presets(model.config)[name]


def filled(model: TextModel, plan: Plan, ids: I32, kv_kind: str = "f32") -> KVCache:
    cache = new_cache(model, plan, kv_kind)
    for start in range(0, len(ids), CHUNK):
        extend(model, plan, cache, ids[start : start + CHUNK], "none")
    return cache


@pytest.mark.parametrize("name", PLANS)
def test_every_split_gives_the_same_bits(
    isa: str, stored: TextModel, rng: np.random.Generator, name: str
) -> None:
    ids, plan = random_ids(rng, 21), plan_of(stored, name)
    whole = chunked(stored, plan, ids)
    for first in range(1, 21):
        assert np.array_equal(chunked(stored, plan, ids, [first]), whole)


def test_one_by_one_gives_the_same_bits(
    isa: str, stored: TextModel, rng: np.random.Generator
) -> None:
    ids, plan = random_ids(rng, 21), plan_of(stored, "full")
    assert np.array_equal(chunked(stored, plan, ids, [1] * 21), chunked(stored, plan, ids))


@pytest.mark.parametrize("kv_kind", ["f32", "bf16", "int8"])
def test_chunks_give_the_same_bits_across_pages_and_rings(
    stored: TextModel, rng: np.random.Generator, kv_kind: str
) -> None:
    """230 tokens: beyond the window of 8, four pages, and once around the rings of three pages."""
    ids, plan = random_ids(rng, 230), plan_of(stored, "full")
    whole = chunked(stored, plan, ids, kv_kind=kv_kind)
    for _ in range(4):
        sizes: list[int] = []
        while sum(sizes) < len(ids):
            sizes.append(int(rng.integers(1, min(CHUNK, len(ids) - sum(sizes)) + 1)))
        assert np.array_equal(chunked(stored, plan, ids, sizes, kv_kind), whole)


def test_without_a_cache_is_the_same(stored: TextModel, rng: np.random.Generator) -> None:
    """Token t with a cache of t tokens, and as the last of a fresh pass over all of them."""
    ids, plan = random_ids(rng, 40), plan_of(stored, "full")
    cached = chunked(stored, plan, ids, [1] * 40)
    for length in range(1, 41):
        fresh = extend(stored, plan, new_cache(stored, plan), ids[:length], "last")
        assert np.array_equal(fresh[0], cached[length - 1])


@pytest.mark.parametrize("rows", ["last", [0], [19, 3, 3], list(range(1, 20)), list(range(20))])
def test_wanted_rows_are_rows_of_all(
    stored: TextModel, rng: np.random.Generator, rows: Literal["last"] | list[int]
) -> None:
    """And what the others leave in the cache is the same too."""
    ids, plan = random_ids(rng, 20), plan_of(stored, "full")
    everything, some = new_cache(stored, plan), new_cache(stored, plan)
    want = extend(stored, plan, everything, ids, "all")
    got = extend(stored, plan, some, ids, rows)
    assert np.array_equal(got, want[[19] if isinstance(rows, str) else rows])
    assert same_pages(everything, some)


def together(model: TextModel, plan: Plan, caches: list[KVCache], parts: list[I32]) -> list[F32]:
    """One pass over new tokens of several sequences; logits of each."""
    for cache, ids in zip(caches, parts, strict=True):
        cache.reserve(len(ids))
    batch = Batch.of([(ids, cache.length, cache) for ids, cache in zip(parts, caches, strict=True)])
    out = model.forward(model.new_state(4 * CHUNK), plan, batch, "all")
    assert out is not None
    for cache, ids in zip(caches, parts, strict=True):
        cache.commit(len(ids))
    return np.split(out.copy(), np.cumsum([len(ids) for ids in parts])[:-1])


@pytest.mark.parametrize("kv_kind", ["f32", "bf16", "int8"])
def test_a_row_of_a_batch_is_that_row_alone(
    isa: str, stored: TextModel, rng: np.random.Generator, kv_kind: str
) -> None:
    plan = plan_of(stored, "e2b")
    prompts = [random_ids(rng, count) for count in (1, 70, 9, 33)]
    parts = [random_ids(rng, count) for count in (5, 1, 17, 2)]
    batched, alone = ([filled(stored, plan, ids, kv_kind) for ids in prompts] for _ in range(2))
    for new in (parts, [ids[:1] for ids in parts]):
        for got, cache, ids in zip(together(stored, plan, batched, new), alone, new, strict=True):
            assert np.array_equal(got, extend(stored, plan, cache, ids))
    for first, second in zip(batched, alone, strict=True):
        assert same_pages(first, second)


def test_any_number_of_threads_gives_the_same_bits(
    isa: str, stored: TextModel, rng: np.random.Generator, threads: Callable[[int], None]
) -> None:
    ids, plan = random_ids(rng, 50), plan_of(stored, "full")
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(chunked(stored, plan, ids, [40, 1, 1]))
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_instruction_sets_agree_to_rounding(
    models: Callable[[str], TextModel], rng: np.random.Generator
) -> None:
    from matryo import kernels

    model, ids, before = models("f32"), random_ids(rng, 40), kernels.isa()
    results = []
    for name in kernels.isas():
        kernels.set_isa(name)
        results.append(chunked(model, plan_of(model, "full"), ids))
    kernels.set_isa(before)
    assert all(np.abs(result - results[0]).max() < 5e-4 for result in results)
