"""Conversations: prompts, prefix reuse, stopping, cancelling, plans between tokens."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.models import text_model
from helpers.sessions import BOS, make_runtime, new_session, text_files
from matryo.errors import CapacityError, ConfigError, InputError, PlanError
from matryo.model import TextModel
from matryo.plan import Plan
from matryo.sampling import GREEDY, Sampling
from matryo.session import Event, Session
from matryo.session.runtime import Runtime

CONTEXT = 400


@pytest.fixture(scope="session")
def model() -> TextModel:
    return text_model(max_position_embeddings=CONTEXT)


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_files(tmp_path_factory.mktemp("text"))


@pytest.fixture
def runtime(model: TextModel, directory: Path) -> Runtime:
    return make_runtime(directory, model)


@pytest.fixture
def session(runtime: Runtime) -> Session:
    return new_session(runtime)


def run(session: Session, prompt: Any = None, count: int = 6, **options: Any) -> list[Event]:
    return list(session.generate(prompt, max_tokens=count, **{"sampling": GREEDY, **options}))


def tokens(events: Iterable[Event]) -> list[int | None]:
    return [event.token for event in events if event.kind == "token"]


def test_text_begins_with_bos_and_goes_on_without(session: Session, runtime: Runtime) -> None:
    events = run(session, "the a")
    prompt = runtime.text.tokenizer.encode("the a", bos=True)
    assert session.ids == prompt + tokens(events)
    assert events[0].stats.prompt_tokens == len(prompt) and events[-1].finish_reason == "length"
    before = session.ids
    run(session, "b")
    assert (
        session.ids[: len(before) + 1]
        == [*before, *runtime.text.tokenizer.encode("b")][: len(before) + 1]
    )
    assert session.ids.count(BOS) == before.count(BOS)


def test_events_count_and_end(session: Session) -> None:
    events = run(session, [5, 6, 7], 4)
    assert [event.kind for event in events] == ["token"] * 4 + ["done"]
    assert [event.index for event in events] == [0, 1, 2, 3, 4]
    assert {event.plan for event in events} == {"e4b"}  # the first of the names of everything
    stats = events[-1].stats
    assert (stats.prompt_tokens, stats.cached_tokens, stats.generated_tokens) == (3, 0, 4)
    assert stats.tps > 0 and stats.prompt_tps > 0 and 0 < stats.seconds_to_first_token
    assert session.num_cached == len(session) - 1 == 6


def test_going_on_is_the_same_as_not_having_stopped(runtime: Runtime) -> None:
    whole, parts = new_session(runtime), new_session(runtime)
    run(whole, [5, 6, 7], 12)
    run(parts, [5, 6, 7], 5)
    run(parts, None, 1)
    run(parts, None, 6)
    assert parts.ids == whole.ids


def test_messages_keep_the_common_beginning(session: Session, runtime: Runtime) -> None:
    first = [{"role": "user", "content": "the a"}]
    events = run(session, first)
    prompt = events[0].stats.prompt_tokens
    answer = "".join(event.text for event in events)
    longer = [*first, {"role": "assistant", "content": answer}, {"role": "user", "content": "b"}]
    ids = runtime.text.tokenizer.encode(runtime.text.chat_template.render(longer))
    common = next(i for i, (a, b) in enumerate(zip(session.ids, ids, strict=False)) if a != b)
    events = run(session, longer)
    assert prompt <= common and events[0].stats.cached_tokens == common
    fresh = new_session(runtime)
    run(fresh, longer)
    assert session.ids == fresh.ids
    other = run(session, [{"role": "user", "content": "é"}])
    assert other[0].stats.cached_tokens < prompt


def test_the_same_prompt_again_computes_one_token(session: Session) -> None:
    ids = [5, 6, 7, 8]
    first = run(session, ids)
    session.trim(4)
    again = run(session, None)
    assert again[0].stats.cached_tokens == 3 and tokens(again) == tokens(first)


def test_end_tokens_stop_and_stay(directory: Path, model: TextModel) -> None:
    probe = new_session(make_runtime(directory, model))
    stop = tokens(run(probe, [5, 6, 7], 3))[2]
    assert stop is not None
    session = new_session(make_runtime(directory, model, eos_ids=frozenset({stop})))
    events = run(session, [5, 6, 7], 10)
    assert events[-1].finish_reason == "stop" and events[-1].token == stop
    assert stop not in tokens(events)
    assert session.ids[-1] == stop and session.ids.count(stop) == 1


def test_the_end_of_the_context_stops(session: Session) -> None:
    events = run(session, list(range(3, CONTEXT - 2)), 50)
    assert events[-1].finish_reason == "context" and len(session) == CONTEXT
    with pytest.raises(CapacityError, match="401 are needed"):
        session.generate(None)
    with pytest.raises(CapacityError):
        session.generate([1])
    assert len(session) == CONTEXT
    session.trim(CONTEXT - 2)
    assert run(session, None, 50)[-1].finish_reason == "context"


def test_a_prompt_that_leaves_no_room_changes_nothing(session: Session) -> None:
    run(session, [5, 6, 7], 2)
    before, cached = session.ids, session.num_cached
    for prompt in (list(range(CONTEXT)), [1] * (CONTEXT - len(before))):
        with pytest.raises(CapacityError):
            session.generate(prompt)
    assert session.ids == before and session.num_cached == cached


@pytest.mark.parametrize(
    ("prompt", "options", "error"),
    [
        ([1], {"max_tokens": 0}, InputError),
        ([1], {"max_tokens": True}, InputError),
        ([1], {"stop": ""}, InputError),
        ([1], {"stop": ["a", ""]}, InputError),
        ([1], {"sampling": Sampling(temperature=0.0), "stop": [""]}, InputError),
        ([], {}, InputError),
        ([544], {}, InputError),
        ([[1], [2, 3]], {}, InputError),
        ([{"role": "user"}], {}, InputError),
        ([{"role": "assistant", "content": "a"}], {}, InputError),
        ([{"role": "user", "content": "a"}, 3], {}, InputError),
        ("\ud800", {}, InputError),
        (None, {}, InputError),
    ],
)
def test_what_cannot_be_used_is_refused_at_once_and_changes_nothing(
    session: Session, prompt: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    if prompt is not None:
        run(session, [5, 6], 2)
    before, cached = session.ids, session.num_cached
    with pytest.raises(error):
        session.generate(prompt, **options)
    assert session.ids == before and session.num_cached == cached


def test_without_a_tokenizer_ids_still_work(model: TextModel, tmp_path: Path) -> None:
    session = new_session(make_runtime(tmp_path, model))
    events = run(session, [5, 6, 7])
    assert len(tokens(events)) == 6 and not any(event.text for event in events)
    calls: list[Any] = [lambda: session.generate("a"), lambda: session.generate([1], stop="a")]
    for call in calls:
        with pytest.raises(InputError, match=r"no tokenizer\.json"):
            call()
    with pytest.raises(InputError, match="no chat template"):
        session.generate([{"role": "user", "content": "a"}])
    assert len(session) == 9


def test_cancelling_during_the_answer_keeps_it(runtime: Runtime) -> None:
    session, whole, cancel = new_session(runtime), new_session(runtime), threading.Event()
    run(whole, [5, 6, 7], 6)
    events = []
    for event in session.generate([5, 6, 7], sampling=GREEDY, cancel=cancel):
        events.append(event)
        if event.index == 2:
            cancel.set()
    assert events[-1].finish_reason == "cancelled" and len(tokens(events)) == 3
    run(session, None, 3)
    assert session.ids == whole.ids


def test_cancelling_during_the_prompt_chooses_no_token(session: Session) -> None:
    cancel = threading.Event()
    events = list(
        session.generate(
            list(range(3, 53)),
            cancel=cancel,
            on_prefill_progress=lambda done, of: cancel.set(),
            sampling=GREEDY,
        )
    )
    assert [event.kind for event in events] == ["done"]
    assert (
        events[0].finish_reason == "cancelled"
        and events[0].token is None
        and events[0].stats.generated_tokens == 0
    )
    assert session.num_cached == 16 and len(session) == 50


def test_leaving_the_loop_is_like_stopping_there(runtime: Runtime) -> None:
    session, whole = new_session(runtime), new_session(runtime)
    run(whole, [5, 6, 7], 8)
    for event in session.generate([5, 6, 7], sampling=GREEDY):
        if event.index == 3:
            break
    run(session, None, 4)
    assert session.ids == whole.ids


def test_only_the_latest_generation_runs(session: Session) -> None:
    first = session.generate([5, 6, 7], sampling=GREEDY)
    next(first)
    never_begun = session.generate([8], sampling=GREEDY)
    latest = session.generate([9], sampling=GREEDY, max_tokens=2)
    for stale in (first, never_begun):
        with pytest.raises(InputError, match="another generation"):
            next(stale)
    assert [event.kind for event in latest] == ["token", "token", "done"]


def test_prefill_then_generate(runtime: Runtime) -> None:
    session, whole = new_session(runtime), new_session(runtime)
    seen: list[int] = []
    session.prefill(list(range(3, 43)), on_progress=lambda done, of: seen.append(done))
    assert seen == [16, 32, 39] and session.num_cached == 39 and len(session) == 40
    run(session, None)
    run(whole, list(range(3, 43)))
    assert session.ids == whole.ids
    session.prefill([7])
    assert session.num_cached == len(session) - 1


def test_plans_by_name_and_between_tokens(session: Session) -> None:
    names = []
    for event in session.generate([5, 6, 7], sampling=GREEDY, max_tokens=4):
        names.append(event.plan)
        session.plan = "e2b" if event.index % 2 == 0 else "full"
    assert names[1:4] == ["e2b", "full", "e2b"]
    assert not session.is_exact
    session.reanchor()
    assert session.num_cached == 0 and session.is_exact
    run(session, None, 1)
    assert session.is_exact and session.num_cached == len(session) - 1
    with pytest.raises(PlanError, match="no plan named 'e9'"):
        session.plan = "e9"
    assert session.plan_name == "e2b"


def test_a_plan_with_other_owners_starts_the_cache_again(runtime: Runtime) -> None:
    session = new_session(runtime)
    run(session, [5, 6, 7], 4)
    fewer = Plan((1, 2, 3), (128,) * 3, 3)
    session.plan = fewer
    assert not session.is_exact
    events = run(session, None, 3)
    assert events[0].stats.cached_tokens == 0 and session.is_exact
    fresh = new_session(runtime, fewer)
    assert run(fresh, session.ids[:7], 3)[-1].stats.prompt_tokens == 7
    assert fresh.ids == session.ids and session.plan_name == fewer.describe()


def test_trim(session: Session) -> None:
    run(session, [5, 6, 7], 10)
    ids = session.ids
    for wrong in (-1, len(ids) + 1, 1.0, True):
        with pytest.raises(InputError, match="trim"):
            session.trim(wrong)  # type: ignore[arg-type]
    session.trim(8)
    assert session.ids == ids[:8] and session.num_cached == 7
    run(session, None, 5)
    assert session.ids == ids
    session.trim(0)
    assert len(session) == session.num_cached == 0
    run(session, [5, 6, 7], 10)
    assert session.ids == ids


def test_sampling_that_was_used_is_remembered(session: Session) -> None:
    assert session.last_sampling is None
    run(session, [5], 3, sampling=None)
    used = session.last_sampling
    assert used is not None and used.top_k == 64 and used.seed is not None
    ids = session.ids
    session.trim(1)
    run(session, None, 3, sampling=used)
    assert session.ids == ids


def test_suppressed_ids_and_masks(session: Session) -> None:
    only = np.zeros(544, np.bool_)
    only[[300, 301]] = True
    anything = Sampling(temperature=100.0, top_k=0, top_p=1.0, seed=1)
    run(session, [5], 10, sampling=anything, logit_mask=only)
    assert set(session.ids[1:]) == {300, 301}
    run(session, None, 60, sampling=anything)
    assert max(session.ids) < 512


def test_a_closed_session_keeps_its_ids_and_says_what_to_do(
    session: Session, tmp_path: Path
) -> None:
    running = session.generate([5, 6, 7], sampling=GREEDY)
    next(running)
    session.close()
    session.close()
    assert session.ids[:3] == [5, 6, 7] and session.num_cached == 0 and session.cache_bytes == 0
    calls: list[Any] = [
        lambda: session.generate([1]),
        lambda: session.prefill([1]),
        lambda: next(running),
        lambda: session.fork(),
        lambda: session.reanchor(),
        lambda: setattr(session, "plan", "e2b"),
        lambda: session.save(tmp_path / "a.session"),
    ]
    for call in calls:
        with pytest.raises(InputError, match="was closed"):
            call()
    assert not list(tmp_path.glob("*.session"))


def test_bad_sampling_leaves_the_session_alone(session: Session) -> None:
    with pytest.raises(ConfigError):
        session.generate([1, 2], sampling=Sampling(top_p=3.0))
    assert len(session) == 0


def test_logits_of_a_continuation_leave_the_session_as_it_is(
    session: Session, model: TextModel, runtime: Runtime
) -> None:
    with pytest.raises(InputError, match="the session is empty"):
        session.logits([5])
    session.prefill([3, 4, 5, 6, 7])
    before, cached = session.ids, session.num_cached
    found = session.logits([8, 9, 10])
    assert session.ids == before and session.num_cached == cached
    other = runtime.engine.new_sequence(session.plan, "f32")
    whole = runtime.engine.prefill(other, session.plan, [*before, 8, 9], logits="all")
    assert whole is not None and np.array_equal(found, whole[-3:])
    assert np.array_equal(session.logits([8]), found[:1])
    for wrong in ([], [10**6]):
        with pytest.raises(InputError):
            session.logits(wrong)
    with pytest.raises(CapacityError):
        session.logits([5] * CONTEXT)
    assert session.ids == before
