"""What a session says: whole characters, nothing of a stop string, the same ids for the same seed,
saved or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.models import text_model
from helpers.sessions import make_runtime, new_session, text_files
from helpers.text_files import PIECES
from matryo.model import TextModel
from matryo.sampling import Sampling, choose
from matryo.session import Event, Session
from matryo.session.runtime import Runtime

PROMPT = [2, 300, 17, 301]
BYTES = range(3, 259)
TOKENS = st.one_of(
    st.sampled_from([0, 2, *range(300, 300 + len(PIECES)), 400, 511]), st.sampled_from(BYTES)
)
SCRIPTS = st.one_of(
    st.lists(TOKENS, min_size=1, max_size=20),
    st.text(min_size=1, max_size=8).map(lambda text: [3 + byte for byte in text.encode()]),
)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """A runtime whose model is as small as can be: what it prefers does not matter here."""
    model = text_model(
        num_hidden_layers=3,
        num_kv_shared_layers=0,
        activation_sparsity_pattern=[0.0] * 3,
        layer_types=["sliding_attention"] * 2 + ["full_attention"],
    )
    return make_runtime(text_files(tmp_path_factory.mktemp("text")), model)


def scripted(script: Sequence[int], start: int) -> Callable[[Sequence[int]], npt.NDArray[np.bool_]]:
    """A mask that allows one token only, the next of the script."""

    def allow(ids: Sequence[int]) -> npt.NDArray[np.bool_]:
        mask = np.zeros(544, np.bool_)
        mask[script[len(ids) - start]] = True
        return mask

    return allow


def says(runtime: Runtime, script: Sequence[int], **options: Any) -> list[Event]:
    """The events of a session whose answer is `script`."""
    session = new_session(runtime)
    mask = scripted(script, len(PROMPT))
    return list(session.generate(PROMPT, max_tokens=len(script), logit_mask=mask, **options))


@given(script=SCRIPTS)
@settings(max_examples=60, deadline=None)
def test_pieces_joined_are_the_text_of_all_ids(shared: Runtime, script: list[int]) -> None:
    """The text is that of all bytes at once, so no character may be cut where two pieces meet."""
    events = says(shared, script)
    assert [event.token for event in events[:-1]] == script
    for event in events:
        event.text.encode()  # never half a surrogate
    tokenizer = shared.text.tokenizer
    whole = b"".join(map(tokenizer.bytes_of, script)).decode("utf-8", errors="replace")
    assert "".join(event.text for event in events) == tokenizer.decode(script) == whole


@given(script=SCRIPTS, data=st.data())
@settings(max_examples=80, deadline=None)
def test_a_stop_string_is_never_emitted(
    shared: Runtime, script: list[int], data: st.DataObject
) -> None:
    """However tokens and bytes split it; all before it is emitted, and generation stops there."""
    whole = shared.text.tokenizer.decode(script)
    start = data.draw(st.integers(0, max(len(whole) - 1, 0)))
    inside = whole[start : start + data.draw(st.integers(1, 4))]
    stops = [stop for stop in (inside, data.draw(st.text(max_size=2))) if stop]
    events = says(shared, script, stop=stops)
    text = "".join(event.text for event in events)
    assert not any(stop in text for stop in stops)
    assert whole.startswith(text)
    if any(stop in whole for stop in stops):
        first = min(whole.find(stop) + len(stop) for stop in stops if stop in whole)
        before = [whole[: first - len(stop)] for stop in stops if whole[:first].endswith(stop)]
        assert text in before
    else:
        assert text == whole and events[-1].finish_reason == "length"


SAMPLINGS = [
    Sampling(temperature=1.5, top_k=0, top_p=1.0, seed=11),
    Sampling(temperature=1.0, top_k=64, top_p=0.95, seed=12),
    Sampling(temperature=2.0, top_k=0, top_p=0.9, min_p=0.01, repetition_penalty=1.3, seed=13),
    Sampling(temperature=0.0, seed=14),
]


def test_the_same_seed_gives_the_same_ids_alone_and_in_a_batch(runtime: Runtime) -> None:
    """Four sequences of different lengths and ways to sample, decoded together, against four
    sessions.
    """
    plan, engine = runtime.plans["full"], runtime.engine
    samplings = [sampling.resolve(runtime.sampling) for sampling in SAMPLINGS]
    ids = [PROMPT[: row + 1] for row in range(4)]
    sequences = [engine.new_sequence(plan, "f32") for _ in ids]
    logits = []
    for sequence, prompt in zip(sequences, ids, strict=True):
        out = engine.prefill(sequence, plan, prompt)
        assert out is not None
        logits.append(out[0])
    for _ in range(25):
        for row, sampling in enumerate(samplings):
            token = choose(logits[row], sampling, ids[row], suppressed=runtime.suppressed)
            ids[row] = [*ids[row], token]
        logits = list(engine.decode(sequences, [plan] * 4, [row[-1] for row in ids]))
    for row, sampling in enumerate(SAMPLINGS):
        session = new_session(runtime)
        for event in session.generate(PROMPT[: row + 1], max_tokens=25, sampling=sampling):
            assert event.kind == "done" or event.token == ids[row][row + 1 + event.index]
    assert len({tuple(row[-20:]) for row in ids}) == 4


def test_another_seed_gives_other_ids(runtime: Runtime) -> None:
    answers = set()
    for seed in (1, 2, None, None):
        session = new_session(runtime)
        sampling = Sampling(temperature=2.0, top_k=0, top_p=1.0, seed=seed)
        list(session.generate(PROMPT, max_tokens=12, sampling=sampling))
        answers.add(tuple(session.ids))
    assert len(answers) == 4


def answered(session: Session, prompt: Any, count: int, plans: Sequence[str] = ()) -> list[int]:
    """Ids after an answer of `count` tokens; `plans` are taken in turn, one a token."""
    for event in session.generate(prompt, max_tokens=count, sampling=SAMPLINGS[0]):
        if plans:
            session.plan = plans[event.index % len(plans)]
    return session.ids


@pytest.mark.parametrize("kv_kind", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_a_saved_session_goes_on_bit_for_bit(
    models: Callable[[str], TextModel],
    tmp_path: Path,
    rng: np.random.Generator,
    kv_kind: str,
    length: int,
) -> None:
    """On both sides of a page and of a ring's end; in a session with two plans in its cache;
    another engine.
    """
    here, there = (make_runtime(text_files(tmp_path), models("q4")) for _ in range(2))
    session = new_session(here, kv_kind=kv_kind)
    session.prefill(rng.integers(0, 512, length).tolist())
    answered(session, None, 10, ["e2b", "full", "full"])
    session.save(tmp_path / "a.session")
    restored = Session.restore(there, tmp_path / "a.session")
    assert restored.ids == session.ids and restored.num_cached == session.num_cached
    assert restored.is_exact is session.is_exact and restored.last_sampling == session.last_sampling
    assert restored.plan == session.plan
    one, other = (next_logits(each) for each in (session, restored))
    assert np.array_equal(one, other)
    assert answered(session, None, 15, ["full", "e2b"]) == answered(
        restored, None, 15, ["full", "e2b"]
    )
    assert np.array_equal(next_logits(session), next_logits(restored))


def next_logits(session: Session) -> npt.NDArray[np.float32]:
    """Logits after the session's last id, without changing the session."""
    sequence = session._sequence.fork()
    waiting = session.ids[len(sequence) :]
    return session._engine.decode([sequence], [session.plan], waiting[:1])


def test_forks_go_their_own_ways(runtime: Runtime, rng: np.random.Generator) -> None:
    prompt = rng.integers(0, 512, 90).tolist()
    session = new_session(runtime)
    session.prefill(prompt)
    forks = [session.fork() for _ in range(3)]
    endings = [[3, 4], [5], [6, 7, 8]]
    answers = [answered(fork, ending, 8) for fork, ending in zip(forks, endings, strict=True)]
    assert session.ids == prompt
    for ending, answer in zip(endings, answers, strict=True):
        assert answer == answered(new_session(runtime), [*prompt, *ending], 8)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["say", "trim", "plan", "reanchor", "fork", "save"]), st.integers(0, 40)
        ),
        max_size=8,
    )
)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_exact_session_is_a_fresh_one(
    runtime: Runtime, tmp_path: Path, steps: list[tuple[str, int]]
) -> None:
    """Whatever happened to it: while `is_exact` is true the next logits are those of the ids alone,
    bit for bit.
    """
    session = new_session(runtime)
    answered(session, PROMPT, 3)
    for action, number in steps:
        if action == "say":
            answered(session, [3 + number], 1 + number % 5)
        elif action == "trim":
            session.trim(max(len(session) - number, 1))
        elif action == "plan":
            session.plan = ("full", "e2b")[number % 2]
        elif action == "reanchor":
            session.reanchor()
        elif action == "fork":
            session = session.fork()
        else:
            session.save(tmp_path / "a.session")
            session = Session.restore(runtime, tmp_path / "a.session")
    if session.is_exact:
        fresh = new_session(runtime, session.plan)
        answered(fresh, session.ids, 4)
        answered(session, None, 4)
        assert session.ids == fresh.ids
        assert np.array_equal(next_logits(session), next_logits(fresh))
