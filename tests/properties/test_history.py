"""What happened to a sequence before does not matter, only which tokens it holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.models import F32, chunked, random_ids, same_pages
from matryo.engine import CachedSequence, Engine
from matryo.model import TextModel
from matryo.plan import presets

F64 = npt.NDArray[np.float64]
Models = Callable[[str], TextModel]
STEPS = st.lists(
    st.tuples(st.sampled_from(["extend", "extend", "trim", "fork", "swap"]), st.integers(1, 90)),
    min_size=3,
    max_size=14,
)


@pytest.fixture(scope="session")
def engine(models: Models) -> Engine:
    return Engine(models("f32"), chunk=32)


@given(steps=STEPS, kv_kind=st.sampled_from(["f32", "int8"]), seed=st.integers(0, 1 << 30))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_trimmed_forked_and_extended_sequences_are_fresh_ones(
    engine: Engine, steps: list[tuple[str, int]], kv_kind: str, seed: int
) -> None:
    """Two sequences that share pages are extended, trimmed and forked at random; each is what its
    tokens alone give.

    Where a trim reaches behind what rings still hold, the sequence must have become empty, not
    wrong.
    """
    rng, plan = np.random.default_rng(seed), presets(engine.model.config)["full"]
    tokens: list[list[int]] = [[], []]
    sequences = [engine.new_sequence(plan, kv_kind) for _ in range(2)]
    for action, number in steps:
        if action == "extend" and len(tokens[0]) + number <= 250:
            new = random_ids(rng, number)
            engine.prefill(sequences[0], plan, new, logits="none")
            tokens[0] += new.tolist()
        elif action == "trim" and tokens[0]:
            sequences[0].trim(max(len(tokens[0]) - number, 0))
            del tokens[0][len(sequences[0]) :]
        elif action == "fork":
            sequences[1], tokens[1] = sequences[0].fork(), list(tokens[0])
        elif action == "swap":
            sequences.reverse()
            tokens.reverse()
    for sequence, ids in zip(sequences, tokens, strict=True):
        fresh = engine.new_sequence(plan, kv_kind)
        if ids:
            engine.prefill(fresh, plan, ids, logits="none")
        assert len(sequence) == len(ids)
        assert np.array_equal(_next(engine, sequence), _next(engine, fresh))


def _next(engine: Engine, sequence: CachedSequence) -> F32:
    return engine.decode([sequence], [presets(engine.model.config)["full"]], [7])


def test_trimming_within_the_window_keeps_the_cache(
    engine: Engine, rng: np.random.Generator
) -> None:
    """A few tokens are dropped without computing the rest again, also far beyond the window."""
    plan, ids = presets(engine.model.config)["full"], random_ids(rng, 240)
    sequence = engine.new_sequence(plan, "f32")
    engine.prefill(sequence, plan, ids, logits="none")
    sequence.trim(210)
    assert len(sequence) == 210


def test_forks_share_pages_until_they_write(engine: Engine, rng: np.random.Generator) -> None:
    plan = presets(engine.model.config)["full"]
    sequence = engine.new_sequence(plan, "bf16")
    engine.prefill(sequence, plan, random_ids(rng, 100), logits="none")
    before, copy = sequence.cache.export(), sequence.fork()
    engine.prefill(copy, plan, random_ids(rng, 60), logits="none")
    after = sequence.cache.export()
    assert all(np.array_equal(pages, after[name]) for name, pages in before.items())
    copy.trim(100)
    assert same_pages(copy.cache, sequence.cache)


@pytest.mark.parametrize(("kv_kind", "limit"), [("bf16", 2e-5), ("int8", 3e-4)])
def test_smaller_keys_and_values_drift_little_and_not_more_with_length(
    models: Models, rng: np.random.Generator, kv_kind: str, limit: float
) -> None:
    """Mean Kullback-Leibler divergence from f32 K/V over 250 tokens, in nats; the limits are ten
    times what was seen.
    """
    model = models("f32")
    plan = presets(model.config)["full"]
    divergences = []
    for _ in range(3):
        ids = random_ids(rng, 250)
        exact, ours = (
            _log_softmax(chunked(model, plan, ids, kv_kind=kind)) for kind in ("f32", kv_kind)
        )
        divergences.append((np.exp(exact) * (exact - ours)).sum(axis=1))
    mean = np.mean(divergences, axis=0)
    assert 0 < mean.mean() < limit
    assert mean[125:].mean() < 3 * mean[:125].mean()


def _log_softmax(logits: F32) -> F64:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    result: F64 = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return result
