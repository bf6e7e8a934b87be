"""The choice of a token against a plain brute force, and its statistics."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matryo.errors import ConfigError, InputError
from matryo.sampling import GEMMA_SAMPLING, GREEDY, Sampling, choose, default_sampling, uniform

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
PLAIN = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, seed=0)


def with_(**changes: Any) -> Sampling:
    return Sampling(**changes).resolve(PLAIN)


def distribution(logits: F32, sampling: Sampling, ids: list[int]) -> F64:
    """The probability of each token, step by step as the documentation says it. Logits must differ
    pairwise.
    """
    assert (
        sampling.temperature is not None
        and sampling.top_k is not None
        and sampling.top_p is not None
    )
    assert sampling.min_p is not None and sampling.repetition_penalty is not None
    scores = logits.astype(np.float64)
    for token in set(ids):
        factor = sampling.repetition_penalty
        scores[token] = scores[token] / factor if scores[token] > 0 else scores[token] * factor
    scores = scores / sampling.temperature
    order = np.argsort(-scores)
    kept = list(order[: sampling.top_k or len(order)])
    weights = np.exp(scores - scores.max())
    total, sum_so_far, nucleus = sum(weights[kept]), 0.0, []
    for token in kept:
        if sum_so_far >= sampling.top_p * total:
            break
        nucleus.append(token)
        sum_so_far += weights[token]
    allowed = [token for token in nucleus if weights[token] >= sampling.min_p * weights.max()]
    out = np.zeros(len(logits))
    out[allowed] = weights[allowed] / weights[allowed].sum()
    return out


def drawn(logits: F32, sampling: Sampling, ids: list[int], count: int) -> F64:
    """Shares of the tokens that `count` seeds choose."""
    counts = np.zeros(len(logits))
    for seed in range(count):
        counts[choose(logits.copy(), Sampling(seed=seed).resolve(sampling), ids)] += 1
    return counts / count


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 1},
        {"top_k": 4},
        {"top_k": 1000},
        {"top_p": 0.7},
        {"top_p": 1e-9},
        {"min_p": 0.2},
        {"min_p": 1.0},
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.5},
        {"temperature": 1.5, "top_k": 6, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
        {"temperature": 0.7, "top_p": 0.8, "min_p": 0.1, "repetition_penalty": 1.2},
    ],
)
def test_frequencies_are_those_of_the_brute_force(
    rng: np.random.Generator, changes: dict[str, Any]
) -> None:
    logits = (2.0 * rng.standard_normal(12)).astype(np.float32)
    sampling, ids = with_(**changes), [3, 3, 5, int(logits.argmax())]
    want, count = distribution(logits, sampling, ids), 2000
    got = drawn(logits, sampling, ids, count)
    assert not got[want == 0].any()
    # Five standard deviations of a share; the seeds are fixed, so this passes always or never.
    assert (np.abs(got - want) <= 5 * np.sqrt(want * (1 - want) / count) + 1e-12).all()


@given(
    data=st.data(),
    size=st.integers(1, 700),
    temperature=st.floats(0.05, 20.0),
    top_k=st.sampled_from([0, 0, 1, 2, 50, 10_000]),
    top_p=st.sampled_from([1.0, 1e-12, 0.5, 0.9, 0.999, 0.9999999]),
    min_p=st.sampled_from([0.0, 0.0, 1e-6, 0.1, 1.0]),
    penalty=st.sampled_from([1.0, 0.7, 1.3]),
)
@settings(max_examples=200, deadline=None)
def test_every_choice_is_the_inverse_of_the_running_sum(
    data: st.DataObject,
    size: int,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    penalty: float,
) -> None:
    """Candidates in descending order (ascending ids if nothing is cut), cut where the uniform
    number falls.
    """
    seed = data.draw(st.integers(0, (1 << 64) - 1))
    logits = (5 * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)
    sampling = with_(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=penalty,
        seed=seed,
    )
    ids = data.draw(st.lists(st.integers(0, size - 1), max_size=5))
    probabilities = distribution(logits, sampling, ids)
    token = choose(logits.copy(), sampling, ids)
    cut = top_k > 0 or top_p < 1.0 or min_p > 0.0
    order = np.argsort(-probabilities, kind="stable") if cut else np.arange(size)
    end = float(probabilities[order[: list(order).index(token) + 1]].sum())
    point = uniform(seed, len(ids))
    assert end - probabilities[token] - 1e-6 <= point <= end + 1e-6
    assert (
        probabilities[token] > 0 or top_p != 1.0
    )  # a share of the mass itself may round at the border


def test_top_p_looks_as_far_as_it_must() -> None:
    """A flat distribution needs nearly every token, far more than are looked at first."""
    logits = np.linspace(0.0, 1e-3, 5000).astype(np.float32)
    chosen = {choose(logits.copy(), with_(top_p=0.9, seed=seed), []) for seed in range(800)}
    assert min(chosen) >= 499 and min(chosen) < 560 and max(chosen) > 4900


def test_greedy_takes_the_likeliest_and_the_lowest_of_equals() -> None:
    greedy = GREEDY.resolve(PLAIN)
    logits = np.array([0.0, 3.0, -1.0, 3.0], np.float32)
    assert choose(logits.copy(), greedy, []) == 1
    assert choose(logits.copy(), greedy, [], suppressed=np.array([1])) == 3
    assert choose(logits.copy(), Sampling(repetition_penalty=2.0).resolve(greedy), [1]) == 3


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-30, 1e30])
def test_extreme_temperatures_are_numbers(temperature: float) -> None:
    logits = np.array([1.0, 2.0, -30.0], np.float32)
    for changes in ({}, {"top_k": 2}, {"top_p": 0.9}):
        chosen = {
            choose(logits.copy(), with_(temperature=temperature, seed=seed, **changes), [])
            for seed in range(50)
        }
        assert chosen == {1} if temperature < 1 else len(chosen) > 1


@pytest.mark.parametrize("penalty", [1e-300, 1e-40, 1e40, 1e300])
def test_extreme_penalties_are_numbers(penalty: float) -> None:
    logits = np.array([1.0, 0.0, -1.0], np.float32)
    assert choose(logits, with_(repetition_penalty=penalty, top_k=3), [0, 2]) in (0, 1, 2)
    assert np.isfinite(logits).all()


def test_a_penalty_counts_a_token_once_and_ignores_ids_beyond_the_logits() -> None:
    logits = np.array([4.0, -4.0, 1.0], np.float32)
    choose(logits, with_(repetition_penalty=2.0, temperature=0.0), [0, 0, 1, 1, 99])
    assert logits.tolist() == [2.0, -8.0, 1.0]


def test_suppressed_ids_are_never_chosen(rng: np.random.Generator) -> None:
    logits = rng.standard_normal(20).astype(np.float32)
    suppressed = np.arange(5, 20)
    for sampling in (
        PLAIN,
        with_(top_k=20),
        with_(top_p=0.99),
        with_(temperature=0.0),
        with_(min_p=0.01),
    ):
        for seed in range(100):
            assert (
                choose(
                    logits.copy(), Sampling(seed=seed).resolve(sampling), [], suppressed=suppressed
                )
                < 5
            )


@pytest.mark.parametrize("changes", [{}, {"top_k": 8}, {"top_p": 0.99}, {"temperature": 0.0}])
def test_masks(rng: np.random.Generator, changes: dict[str, Any]) -> None:
    logits, sampling = rng.standard_normal(8).astype(np.float32), with_(**changes)
    allowed = np.zeros(8, np.bool_)
    allowed[[2, 6]] = True
    added = np.where(allowed, 0.0, -np.inf).astype(np.float32)
    for seed in range(60):
        seeded = Sampling(seed=seed).resolve(sampling)
        token = choose(logits.copy(), seeded, [7], logit_mask=allowed)
        assert token in (2, 6)
        assert token == choose(logits.copy(), seeded, [7], logit_mask=added)
        assert token == choose(
            logits.copy(), seeded, [7], logit_mask=lambda ids: allowed if ids == [7] else None
        )
    assert choose(logits.copy(), sampling, [], logit_mask=lambda ids: None) == choose(
        logits.copy(), sampling, []
    )
    favoured = np.zeros(8, np.float32)
    favoured[5] = 1e4
    assert choose(logits.copy(), sampling, [], logit_mask=favoured) == 5


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(7, np.bool_), "shape"),
        (np.ones(8, np.float64), "bool or float32"),
        (np.zeros(8, np.bool_), "allows no token"),
        (np.full(8, -np.inf, np.float32), "allows no token"),
        (np.full(8, np.nan, np.float32), "NaN"),
        (np.full(8, np.inf, np.float32), "inf"),
    ],
)
def test_masks_that_cannot_be_used(mask: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose(np.zeros(8, np.float32), PLAIN, [], logit_mask=mask)


def test_the_number_of_a_token_depends_on_seed_and_position_alone() -> None:
    numbers = np.array(
        [[uniform(seed, position) for position in range(200)] for seed in range(200)]
    )
    assert ((numbers >= 0) & (numbers < 1)).all() and len(np.unique(numbers)) == numbers.size
    assert abs(numbers.mean() - 0.5) < 0.01 and abs(numbers.std() - math.sqrt(1 / 12)) < 0.01
    for axis in (0, 1):
        rest = np.swapaxes(numbers, 0, axis)
        assert abs(np.corrcoef(rest[:-1].ravel(), rest[1:].ravel())[0, 1]) < 0.02
    assert uniform(7, 11) == uniform(7, 11) and 0 <= uniform((1 << 64) - 1, 1 << 40) < 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("temperature", "1"),
        ("temperature", True),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("top_k", -1),
        ("top_k", 1.0),
        ("top_k", False),
        ("seed", -1),
        ("seed", 1 << 64),
        ("seed", 0.5),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: expected .* got "):
        Sampling(**{field: value})


def test_what_is_not_given_comes_from_the_checkpoint() -> None:
    resolved = Sampling(temperature=0.3, seed=4).resolve(GEMMA_SAMPLING)
    assert resolved == Sampling(
        temperature=0.3, top_k=64, top_p=0.95, min_p=0.0, repetition_penalty=1.0, seed=4
    )
    first, second = (Sampling().resolve(GEMMA_SAMPLING).seed for _ in range(2))
    assert first is not None and first != second
    with pytest.raises(ConfigError, match="call `resolve` first"):
        choose(np.zeros(3, np.float32), Sampling(), [])


def test_defaults_of_generation_config() -> None:
    assert default_sampling({}) == GEMMA_SAMPLING
    given = default_sampling({"temperature": 0.5, "top_k": 10, "top_p": None, "max_length": 20})
    assert given == replace(GEMMA_SAMPLING, temperature=0.5, top_k=10)
    assert default_sampling({"do_sample": False, "temperature": 0.5}).temperature == 0.0
    with pytest.raises(ConfigError, match="top_k"):
        default_sampling({"top_k": "many"})


def test_json_round_trip() -> None:
    assert Sampling.from_json(PLAIN.to_json()) == PLAIN
    with pytest.raises(ConfigError, match="unknown field 'beams'"):
        Sampling.from_json({"beams": 3})
