"""Log-probabilities: those of the whole text at once, whatever is shared, split or kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from matryo.engine import Engine
from matryo.errors import InputError
from matryo.evaluate import likelihood
from matryo.evaluate.items import ScoreItem
from matryo.evaluate.likelihood import Scorer, log_probabilities
from matryo.evaluate.rows import text_row
from matryo.kernels.reference_pages import PAGE
from matryo.loading import Model
from matryo.plan import Plan


def item(key: str, prefix: list[int], *continuations: list[int]) -> ScoreItem:
    return ScoreItem(
        key=key,
        row=text_row("x", "p", "w"),
        prefix=tuple(prefix),
        continuations=tuple(map(tuple, continuations)),
        num_bytes=(1,) * len(continuations),
    )


def random_items(rng: np.random.Generator, count: int = 11) -> list[ScoreItem]:
    """Long and short, some behind a common beginning."""
    shared = rng.integers(3, 200, 40).tolist()
    items = []
    for number in range(count):
        own = rng.integers(3, 200, rng.integers(1, 20)).tolist()
        prefix = [2, *shared, *own] if number % 3 else [2, *own]
        ends = [rng.integers(3, 200, rng.integers(1, 9)).tolist() for _ in range(1 + number % 4)]
        items.append(item(f"{number}", prefix, *ends))
    return items


def expected(model: Model, plan: Plan, one: ScoreItem) -> list[float]:
    """From the logits of each whole text."""
    sums = []
    for ids in one.continuations:
        whole = [*one.prefix, *ids]
        logits = model.logits(whole, plan)[len(one.prefix) - 1 : -1].astype(np.float64)
        chances = logits - np.log(np.exp(logits).sum(axis=1))[:, None]
        sums.append(float(chances[np.arange(len(ids)), list(ids)].sum()))
    return sums


def upper_plan(full: Plan) -> Plan:
    """The full plan with narrow readers and one of them skipped."""
    width = dict(zip(full.layers, full.ffn_width, strict=True))
    kept = tuple(n for n in full.layers if n != full.num_owners)
    return Plan(
        kept, tuple(32 if n >= full.num_owners else width[n] for n in kept), full.num_owners
    )


@pytest.mark.parametrize("logit_bytes", [1, 1 << 26])
def test_scores_are_those_of_the_whole_text(
    model: Model, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, logit_bytes: int
) -> None:
    monkeypatch.setattr(likelihood, "LOGIT_BYTES", logit_bytes)
    items = random_items(rng)
    found = dict(
        (one.key, result)
        for one, result in Scorer(model.engine, "f32").score(model.plan("small"), items)
    )
    for one in items:
        result = found[one.key]
        np.testing.assert_allclose(
            result["logprob"], expected(model, model.plan("small"), one), rtol=1e-5
        )
        assert result["tokens"] == [len(ids) for ids in one.continuations]


def scores(scorer: Scorer, plan: Plan, items: list[ScoreItem]) -> list[dict[str, Any]]:
    return [result for _, result in scorer.score(plan, items)]


@pytest.mark.parametrize("logit_bytes", [1 << 14, 1 << 26])
def test_what_a_family_has_in_common_is_computed_once_and_changes_nothing(
    model: Model, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, logit_bytes: int
) -> None:
    """Short items and one of many passes."""
    monkeypatch.setattr(likelihood, "LOGIT_BYTES", logit_bytes)
    long = item("long", [2], rng.integers(3, 200, 150).tolist())
    items = [*random_items(rng), long]
    full = model.plan("large")
    keeping = Scorer(model.engine, "bf16", keep_bytes=1 << 30)
    for plan in (full, upper_plan(full), full):
        assert scores(keeping, plan, items) == scores(Scorer(model.engine, "bf16"), plan, items)
    tokens = sum(len(ids) for one in items for ids in one.continuations)
    assert keeping.computed == tokens and keeping.resumed == 2 * tokens


def test_rings_of_sliding_layers_that_go_on_overwrite_nothing_kept(
    model: Model, rng: np.random.Generator
) -> None:
    """Passes of 8 tokens over a text that is longer than the rings."""
    engine = Engine(model.engine.model, chunk=8)
    full = model.plan("large")
    cache = engine.new_sequence(full, "f32").cache
    ring = min(pages.max_pages for pages in cache._layers if pages.window) * PAGE
    long = item("long", [2], rng.integers(3, 200, 250).tolist())
    assert ring + 64 <= 250
    keeping = Scorer(engine, "f32", keep_bytes=1 << 30)
    first = scores(keeping, full, [long])
    assert scores(keeping, full, [long]) == first
    assert keeping.resumed == keeping.computed == 250
    np.testing.assert_allclose(first[0]["logprob"], expected(model, full, long), rtol=1e-5)


def test_another_family_computes_its_own_and_takes_the_room_of_the_first(
    model: Model, rng: np.random.Generator
) -> None:
    items = random_items(rng)
    full, small = model.plan("large"), model.plan("small")
    first = Scorer(model.engine, "f32", keep_bytes=1 << 30)
    scores(first, full, items)
    keeping = Scorer(model.engine, "f32", keep_bytes=first.kept_bytes)
    for plan in (full, small, small, full):
        assert scores(keeping, plan, items) == scores(Scorer(model.engine, "f32"), plan, items)
        assert 0 < keeping.kept_bytes <= first.kept_bytes
    assert keeping.resumed == keeping.computed // 3


def test_without_room_nothing_is_kept(model: Model, rng: np.random.Generator) -> None:
    scorer = Scorer(model.engine, "f32", keep_bytes=10)
    scores(scorer, model.plan("large"), random_items(rng))
    assert scorer.kept_bytes == 0


def test_the_likeliest_tokens_are_greedy(model: Model) -> None:
    prefix = [2, 5, 9]
    likeliest: list[int] = []
    for _ in range(3):
        logits = model.logits([*prefix, *likeliest], positions="last")
        likeliest.append(int(logits[0].argmax()))
    other = [*likeliest[:2], (likeliest[2] + 1) % 200]
    result = scores(
        Scorer(model.engine, "f32"), model.default_plan, [item("a", prefix, likeliest, other)]
    )
    assert result[0]["greedy"] == [True, False]


def test_log_probabilities_of_large_logits() -> None:
    logits = np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]], np.float32)
    found = log_probabilities(logits, np.array([1, 2]))
    np.testing.assert_allclose(found, [-1e4, -np.log(3)])
    with pytest.raises(InputError, match="2 rows of logits"):
        log_probabilities(logits, np.array([1]))
