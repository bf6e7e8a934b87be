"""Speculation: the same ids as without, guesses that cost time only, lengths that pay."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.models import text_model
from helpers.sessions import make_runtime, new_session, text_files
from matryo.errors import PlanError
from matryo.plan import Plan
from matryo.sampling import GREEDY, Sampling
from matryo.session.draft import Draft, DraftLength, LookupDrafter
from matryo.session.runtime import Runtime

CONTEXT = 160
WARM = Sampling(temperature=0.7, top_k=8, top_p=0.95, seed=11)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    model = text_model(max_position_embeddings=CONTEXT)
    return make_runtime(text_files(tmp_path_factory.mktemp("text")), model)


def narrow(runtime: Runtime, width: int = 32) -> Plan:
    full = runtime.plans["full"]
    return Plan(full.layers, (width,) * len(full.layers), full.num_owners)


def answer(
    runtime: Runtime, draft: Any, sampling: Sampling = GREEDY, count: int = 50, **options: Any
) -> tuple[list[int], Any]:
    session = new_session(runtime, **options)
    prompt = [5, 6, 7, 8, 9, 6, 7, 8]
    for event in session.generate(prompt, max_tokens=count, sampling=sampling, draft=draft):
        stats = event.stats
    return session.ids, stats


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess whatever it costs: a tiny model's times say nothing."""
    monkeypatch.setattr(DraftLength, "next", lambda self: 3)


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    ("draft", "kv_kind"),
    [("lookup", "bf16"), ("narrow", "bf16"), ("narrow", "int8"), ("e2b", "f32"), ("auto", "bf16")],
)
def test_ids_are_those_of_plain_generation(
    runtime: Runtime, always: None, draft: str, kv_kind: str, sampling: Sampling
) -> None:
    plain, none = answer(runtime, None, sampling, kv_kind=kv_kind)
    guesser = narrow(runtime) if draft == "narrow" else draft
    drafted, stats = answer(runtime, guesser, sampling, kv_kind=kv_kind)
    assert drafted == plain
    assert none.drafted_tokens == 0 < stats.drafted_tokens
    assert 0 <= stats.accepted_tokens <= stats.drafted_tokens
    if draft == "narrow":
        assert stats.accepted_tokens > 0


def test_a_draft_of_the_plan_itself_is_always_right(runtime: Runtime, always: None) -> None:
    _, stats = answer(runtime, runtime.plans["full"], WARM)
    # The last guesses may not be asked for any more.
    assert stats.drafted_tokens - stats.accepted_tokens <= 3


def test_everything_that_may_happen_between_tokens_happens_as_without(
    runtime: Runtime, always: None, tmp_path: Path
) -> None:
    def story(draft: Any) -> list[Any]:
        session, seen = new_session(runtime), list[Any]()
        session.generate([1, 2, 3], sampling=WARM, draft=draft)
        for event in session.generate([5, 6, 7], max_tokens=60, sampling=WARM, draft=draft):
            if event.index in (11, 12, 30):
                session.plan = narrow(runtime, 64) if event.index == 11 else "full"
            if event.index == 20:
                fork = session.fork()
                list(fork.generate(max_tokens=9, sampling=WARM, draft=draft))
                seen.append(fork.ids)
            if event.index == 40:
                session.save(tmp_path / "s")
            assert session.num_cached <= len(session) - 1
        session.trim(len(session) - 4)
        list(session.generate(max_tokens=9, sampling=WARM, draft=draft))
        return [*seen, session.ids]

    assert story(narrow(runtime)) == story("lookup") == story(None)


def test_a_generation_may_be_left_and_continued(runtime: Runtime, always: None) -> None:
    session, plain = new_session(runtime), new_session(runtime)
    running = session.generate([5, 6], max_tokens=20, sampling=WARM, draft=narrow(runtime))
    for _ in range(7):
        next(running)
    running.close()  # type: ignore[attr-defined]
    list(session.generate(max_tokens=13, sampling=WARM, draft=narrow(runtime)))
    list(plain.generate([5, 6], max_tokens=20, sampling=WARM))
    assert session.ids == plain.ids and session.num_cached == len(session) - 1


def test_masks_penalties_stops_and_the_end_of_the_context_hold(
    runtime: Runtime, always: None
) -> None:
    allowed = np.zeros(runtime.engine.model.config.vocab_size, np.bool_)
    allowed[300:310] = True

    def limited(draft: Any) -> tuple[list[int], Any]:
        session = new_session(runtime)
        sampling = Sampling(temperature=2.0, repetition_penalty=1.3, seed=4)
        events = list(
            session.generate(
                [5],
                max_tokens=CONTEXT,
                sampling=sampling,
                draft=draft,
                logit_mask=lambda ids: allowed,
            )
        )
        return session.ids, events[-1].finish_reason

    ids, reason = limited(narrow(runtime))
    assert (ids, reason) == limited(None) and reason == "context" and len(ids) == CONTEXT
    assert set(ids[1:]) <= set(range(300, 310))


def test_sampled_tokens_have_the_distribution_of_plain_sampling(
    runtime: Runtime, always: None
) -> None:
    """Pearson's chi-square of the third token over 150 seeds, against other seeds undrafted."""

    def counts(draft: Any, first_seed: int) -> Counter[int]:
        found: Counter[int] = Counter()
        session = new_session(runtime)
        for seed in range(first_seed, first_seed + 150):
            session.trim(min(len(session), 4))
            prompt = [5, 6, 7, 8] if not len(session) else None
            sampling = Sampling(temperature=1.0, top_k=5, top_p=1.0, seed=seed)
            list(session.generate(prompt, max_tokens=3, sampling=sampling, draft=draft))
            found[session.ids[-1]] += 1
        return found

    drafted, plain = counts(narrow(runtime), 0), counts(None, 10_000)
    tokens = [t for t in drafted | plain if drafted[t] + plain[t] >= 8]
    chi_square = sum((drafted[t] - plain[t]) ** 2 / (drafted[t] + plain[t]) for t in tokens)
    degrees = len(tokens) - 1
    assert degrees >= 3
    assert chi_square < degrees + 4 * (2 * degrees) ** 0.5  # seeds are fixed: this cannot flicker


def test_a_draft_with_other_keys_and_values_is_refused(runtime: Runtime) -> None:
    session = new_session(runtime)
    full = runtime.plans["full"]
    config = runtime.engine.model.config
    unread = next(layer for layer in full.owners if layer not in config.producers)
    layers = tuple(layer for layer in full.layers if layer != unread)
    other = Plan(layers, (32,) * len(layers), full.num_owners)
    with pytest.raises(PlanError, match="both must keep the same"):
        session.generate([5], draft=other)
    with pytest.raises(PlanError):
        session.generate([5], draft="no such size")
    assert len(session) == 0


def test_lookup_takes_the_longest_latest_match() -> None:
    drafter = LookupDrafter()
    ids = [1, 2, 3, 4, 9, 3, 4, 8, 1, 2, 3, 4]

    def choose(logits: Any, ids: Any) -> int:
        raise AssertionError("a lookup computes nothing")

    assert drafter.propose(ids, 3, choose).ids == (9, 3, 4)
    assert drafter.propose([*ids, 7], 3, choose).ids == ()
    assert drafter.propose([*ids, 7, 3, 4], 2, choose).ids == (7, 3)
    assert drafter.propose([*ids, 7, 3, 4, 9], 9, choose).ids == (3, 4, 8, 1, 2, 3, 4, 7, 3)


def passes(length: DraftLength, count: int, kept: int, guess: float, wide: float) -> None:
    for _ in range(60):
        length.observe(Draft((), 0.0), 0, 1.0)
        length.observe(Draft((1,) * count, guess * count), kept, wide)


def test_length_grows_where_guesses_are_right_and_cheap() -> None:
    length = DraftLength()
    assert length.next() == 0
    passes(length, 4, 4, 0.05, 1.1)
    assert length.next() == length.longest


def test_length_falls_to_nothing_where_guessing_loses_and_tries_again() -> None:
    length = DraftLength()
    passes(length, 2, 0, 0.55, 1.2)
    assert [length.next() for _ in range(47)] == [0] * 47
    assert length.next() == 2


def test_length_is_the_one_of_the_most_tokens_a_second() -> None:
    length = DraftLength(chance=0.6, guess=0.3, passes={1: 1.0, 3: 1.4})
    chosen = length.next()
    speeds = [
        sum(0.6**n for n in range(k + 1)) / (0.3 * k + 1.0 + 0.2 * k)
        for k in range(length.longest + 1)
    ]
    assert chosen == int(np.argmax(speeds)) and speeds[chosen] == length.tokens_per_second(chosen)
