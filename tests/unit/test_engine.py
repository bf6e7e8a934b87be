"""The engine: what it runs, what it refuses, and what an error or a cancellation leaves behind."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from helpers.models import F32, random_ids, same_pages, text_model, weights_of
from helpers.random_weights import SMALL, config_of, random_state
from matryo import kernels
from matryo.engine import CachedSequence, Embeddings, Engine
from matryo.errors import (
    CancelledError,
    CapacityError,
    CheckpointError,
    InputError,
    PlanError,
)
from matryo.model import TextModel
from matryo.plan import Plan, presets

CONTEXT = 96


class Spy:
    """Kernels that count the rows each block was called with."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.on_call: Callable[[str], None] = lambda name: None

    def __getattr__(self, name: str) -> Any:
        original = getattr(kernels, name)
        if name not in (
            "altup_predict",
            "attention",
            "write_kv",
            "feed_forward",
            "altup_correct",
            "logits",
        ):
            return original

        def counted(handle: Any, first: Any, *rest: Any) -> None:
            self.calls[name] += 1
            self.rows[name] += first.shape[-2]
            self.on_call(name)
            original(handle, first, *rest)

        return counted


@pytest.fixture(scope="session")
def model() -> TextModel:
    return text_model(max_position_embeddings=CONTEXT)


@pytest.fixture
def spy(model: TextModel) -> Spy:
    return Spy()


@pytest.fixture
def spied(model: TextModel, spy: Spy) -> Engine:
    return Engine(TextModel(model.config, model.weights, spy), chunk=16)


@pytest.fixture
def engine(model: TextModel) -> Engine:
    return Engine(model, chunk=16)


@pytest.fixture
def plans(model: TextModel) -> dict[str, Plan]:
    return presets(model.config)


def prefilled(
    engine: Engine, sequence: CachedSequence, plan: Plan, ids: Any, **options: Any
) -> F32:
    """The logits of a prefill that gives some."""
    logits = engine.prefill(sequence, plan, ids, **options)
    assert logits is not None
    return logits


def started(engine: Engine, plan: Plan, ids: Sequence[int] | Any) -> CachedSequence:
    sequence = engine.new_sequence(plan, "f32")
    engine.prefill(sequence, plan, ids, logits="none")
    return sequence


def test_prefill_runs_the_upper_layers_only_for_the_last_token(
    spied: Engine, spy: Spy, plans: dict[str, Plan], rng: np.random.Generator
) -> None:
    """9 layers, 3 owners: two run for all 40 tokens; of the last owner, K/V; the rest for one
    token.
    """
    started_with = spied.new_sequence(plans["full"], "f32")
    spied.prefill(started_with, plans["full"], random_ids(rng, 40))
    assert spy.rows["feed_forward"] == spy.rows["altup_correct"] == 2 * 40 + 7
    assert spy.rows["attention"] == 2 * 40 + 7
    assert spy.rows["write_kv"] == 40 and spy.calls["write_kv"] == 3
    assert spy.rows["altup_predict"] == 3 * 40 + 6  # the last owner's was made with its K/V
    assert spy.rows["logits"] == 1


def test_nothing_above_the_last_owner_runs_without_logits(
    spied: Engine, spy: Spy, plans: dict[str, Plan], rng: np.random.Generator
) -> None:
    spied.prefill(
        spied.new_sequence(plans["full"], "f32"), plans["full"], random_ids(rng, 20), logits="none"
    )
    assert spy.rows["feed_forward"] == 2 * 20 and spy.calls["logits"] == 0


def test_all_logits_and_decoding_run_every_layer_once(
    spied: Engine, spy: Spy, plans: dict[str, Plan], rng: np.random.Generator
) -> None:
    sequence = spied.new_sequence(plans["full"], "f32")
    spied.prefill(sequence, plans["full"], random_ids(rng, 20), logits="all")
    assert spy.rows["feed_forward"] == 9 * 20 and spy.rows["logits"] == 20
    spy.rows.clear()
    spy.calls.clear()
    spied.decode([sequence], [plans["full"]], [3])
    assert (
        set(spy.rows.values()) == {9, 1} and spy.rows["logits"] == 1 and spy.calls["write_kv"] == 0
    )


def test_sequences_of_one_plan_share_a_pass(
    spied: Engine, spy: Spy, plans: dict[str, Plan], rng: np.random.Generator
) -> None:
    sequences = [started(spied, plans["full"], random_ids(rng, count)) for count in (3, 9, 5)]
    spy.calls.clear()
    spied.decode(sequences, [plans["full"], plans["e2b"], plans["full"]], [1, 2, 3])
    assert spy.calls["logits"] == 2


def test_progress_and_chunks(
    engine: Engine, plans: dict[str, Plan], rng: np.random.Generator
) -> None:
    seen: list[tuple[int, int]] = []
    sequence = engine.new_sequence(plans["full"], "f32")
    engine.prefill(
        sequence,
        plans["full"],
        random_ids(rng, 40),
        progress=lambda done, of: seen.append((done, of)),
    )
    assert seen == [(16, 40), (32, 40), (40, 40)]
    seen.clear()
    engine.prefill(
        sequence,
        plans["full"],
        random_ids(rng, 7),
        chunk=3,
        progress=lambda done, of: seen.append((done, of)),
    )
    assert seen == [(3, 7), (6, 7), (7, 7)] and len(sequence) == 47


def test_cancelling_between_chunks_keeps_what_was_done(
    engine: Engine, plans: dict[str, Plan], rng: np.random.Generator
) -> None:
    ids, plan, cancel = random_ids(rng, 40), plans["full"], threading.Event()
    sequence = engine.new_sequence(plan, "f32")

    def stop_after_two(done: int, of: int) -> None:
        if done == 32:
            cancel.set()

    with pytest.raises(CancelledError, match="after 32 of 40"):
        engine.prefill(sequence, plan, ids, cancel=cancel, progress=stop_after_two)
    assert len(sequence) == 32
    whole = prefilled(engine, engine.new_sequence(plan, "f32"), plan, ids)
    assert np.array_equal(prefilled(engine, sequence, plan, ids[32:]), whole)


def test_an_interrupt_inside_a_pass_leaves_the_sequence_as_it_was(
    spied: Engine, spy: Spy, plans: dict[str, Plan], rng: np.random.Generator
) -> None:
    """Ctrl-C arrives anywhere, here inside a layer: the chunk counts as not done, and is simply
    done again.
    """
    plan, ids = plans["full"], random_ids(rng, 12)
    sequence, twin = (started(spied, plan, ids) for _ in range(2))

    def interrupt(name: str) -> None:
        if name == "feed_forward" and spy.calls[name] % 3 == 0:
            raise KeyboardInterrupt

    spy.on_call = interrupt
    with pytest.raises(KeyboardInterrupt):
        spied.decode([sequence], [plan], [5])
    with pytest.raises(KeyboardInterrupt):
        spied.prefill(sequence, plan, ids)
    spy.on_call = lambda name: None
    assert len(sequence) == 12 and len(sequence.spans) == 1
    assert np.array_equal(spied.decode([sequence], [plan], [5]), spied.decode([twin], [plan], [5]))


def test_capacity(engine: Engine, plans: dict[str, Plan], rng: np.random.Generator) -> None:
    plan = plans["full"]
    sequence = started(engine, plan, random_ids(rng, CONTEXT - 2))
    twin = sequence.fork()
    with pytest.raises(CapacityError, match="96 tokens, 97 are needed") as caught:
        engine.prefill(sequence, plan, [1, 2, 3])
    assert (caught.value.needed, caught.value.available) == (97, 96)
    assert len(sequence) == 94
    first = prefilled(engine, sequence, plan, [1, 2])
    with pytest.raises(CapacityError):
        engine.decode([sequence], [plan], [3])
    assert len(sequence) == 96
    assert np.array_equal(first, prefilled(engine, twin, plan, [1, 2]))


def test_a_refused_decode_step_moves_no_sequence(
    engine: Engine, plans: dict[str, Plan], rng: np.random.Generator
) -> None:
    full, e2b = plans["full"], plans["e2b"]
    good, full_up = (
        started(engine, full, random_ids(rng, 5)),
        started(engine, e2b, random_ids(rng, CONTEXT)),
    )
    others = [started(engine, full, [1]) for _ in range(16)]
    for sequences, which, ids, error in (
        ([good, full_up], [full, e2b], [1, 1], CapacityError),
        ([good, others[0]], [full, e2b], [1, 544], InputError),
        ([good, others[0]], [full, e2b], [1, -1], InputError),
        ([good, good], [full, full], [1, 1], InputError),
        ([good], [full], [1, 2], InputError),
        ([good], [full, full], [1], InputError),
        ([good, *others], [full] * 17, [1] * 17, InputError),
    ):
        with pytest.raises(error):
            engine.decode(sequences, which, ids)
        assert len(good) == 5 and len(good.spans) == 1 and all(len(other) == 1 for other in others)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "at least one"),
        ([[1, 2]], "flat|list of at least one"),
        ([[1], [2, 3]], "flat"),
        ([0.5], "whole numbers"),
        (["a"], "whole numbers"),
        ([True], "whole numbers"),
        ([1 << 80], "whole numbers"),
        ([None], "whole numbers"),
        ([-1], "token id -1 is out of range: this model has ids 0 to 543"),
        ([3, 544], "token id 544 is out of range"),
    ],
)
def test_ids_that_are_none(engine: Engine, plans: dict[str, Plan], ids: Any, message: str) -> None:
    sequence = engine.new_sequence(plans["full"], "f32")
    with pytest.raises(InputError, match=message):
        engine.prefill(sequence, plans["full"], ids)
    assert len(sequence) == 0


def test_embeddings_are_cut_into_chunks(
    engine: Engine, plans: dict[str, Plan], rng: np.random.Generator
) -> None:
    ids, plan = random_ids(rng, 40), plans["full"]
    rows = np.array([0, 3, 15, 16, 31, 38], np.int32)
    media = Embeddings(rows, rng.standard_normal((6, 64)).astype(np.float32))
    whole = Engine(engine.model, chunk=64)
    want = prefilled(
        whole, whole.new_sequence(plan, "f32"), plan, ids, logits="all", embeddings=media
    )
    got = prefilled(
        engine, engine.new_sequence(plan, "f32"), plan, ids, logits="all", embeddings=media
    )
    assert np.array_equal(got, want)
    plain = prefilled(engine, engine.new_sequence(plan, "f32"), plan, ids, logits="all")
    assert (got[0] != plain[0]).any()


@pytest.mark.parametrize(
    ("rows", "shape", "dtype"),
    [
        ([3, 2], (2, 64), np.float32),
        ([2, 2], (2, 64), np.float32),
        ([-1, 2], (2, 64), np.float32),
        ([2, 10], (2, 64), np.float32),
        ([2, 3], (1, 64), np.float32),
        ([2, 3], (2, 63), np.float32),
        ([2, 3], (2, 64), np.float64),
        ([[2], [3]], (2, 64), np.float32),
    ],
)
def test_embeddings_that_do_not_fit(
    engine: Engine, plans: dict[str, Plan], rows: Any, shape: tuple[int, ...], dtype: Any
) -> None:
    sequence = engine.new_sequence(plans["full"], "f32")
    media = Embeddings(np.array(rows, np.int32), np.zeros(shape, dtype))
    with pytest.raises(InputError, match="embedding"):
        engine.prefill(sequence, plans["full"], list(range(10)), embeddings=media)
    assert len(sequence) == 0


def test_weights_that_are_no_numbers(plans: dict[str, Plan]) -> None:
    config = config_of({**SMALL, "max_position_embeddings": CONTEXT})
    state = random_state(config)
    state["norm.weight"][3] = np.nan
    engine = Engine(TextModel(config, weights_of(config, state)), chunk=16)
    sequence = engine.new_sequence(plans["full"], "f32")
    with pytest.raises(CheckpointError, match="not numbers"):
        engine.prefill(sequence, plans["full"], [1, 2, 3])
    assert len(sequence) == 0


def test_caches_of_other_plans_are_refused(engine: Engine, plans: dict[str, Plan]) -> None:
    fewer = Plan((1, 2, 3), (128,) * 3, 3)
    sequence = started(engine, plans["full"], [1, 2, 3])
    with pytest.raises(InputError, match="other K/V layers"):
        engine.prefill(sequence, fewer, [1])
    assert len(sequence) == 3


def test_spans_say_who_wrote_what(engine: Engine, plans: dict[str, Plan]) -> None:
    full, e2b = plans["full"], plans["e2b"]
    sequence = started(engine, full, [1, 2, 3])
    assert sequence.is_exact(full) and not sequence.is_exact(e2b)
    engine.decode([sequence], [e2b], [4])
    engine.decode([sequence], [e2b], [5])
    assert [(span.start, span.plan) for span in sequence.spans] == [(0, full), (3, e2b)]
    assert not sequence.is_exact(full) and not sequence.is_exact(e2b)
    copy = sequence.fork()
    sequence.trim(3)
    assert sequence.is_exact(full) and len(sequence) == 3
    assert len(copy) == 5 and not copy.is_exact(full)
    sequence.trim(0)
    assert sequence.spans == [] and sequence.is_exact(e2b)


def test_threads_may_share_one_engine(
    engine: Engine, plans: dict[str, Plan], rng: np.random.Generator
) -> None:
    """Four threads, each its own sequence and plan, all at once: the bits are those of running
    alone.
    """
    prompts = [random_ids(rng, 30) for _ in range(4)]
    which = [plans["full"], plans["e2b"], plans["full"], plans["e2b"]]

    def run(ids: Any, plan: Plan) -> tuple[CachedSequence, list[Any]]:
        sequence = engine.new_sequence(plan, "f32")
        out = [engine.prefill(sequence, plan, ids)]
        for token in range(12):
            out.append(engine.decode([sequence], [plan], [token]))
        return sequence, out

    alone = [run(ids, plan) for ids, plan in zip(prompts, which, strict=True)]
    results: list[Any] = [None] * 4
    gate = threading.Barrier(4)

    def work(index: int) -> None:
        gate.wait()
        results[index] = run(prompts[index], which[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (want, logits), (got, ours) in zip(alone, results, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(logits, ours, strict=True))
        assert same_pages(want.cache, got.cache)


def test_paused_tokens_go_on_with_every_plan_of_the_family(
    engine: Engine, plans: dict[str, Plan], rng: np.random.Generator
) -> None:
    """Two sequences of different lengths; the widths of the readers and which of them run vary."""
    full = plans["full"]
    width = dict(zip(full.layers, full.ffn_width, strict=True))
    upper = [n for n in full.layers if n >= full.num_owners]
    kept = (*range(full.num_owners), *upper[1:])
    narrow = Plan(
        kept, tuple(32 if n >= full.num_owners else width[n] for n in kept), full.num_owners
    )
    assert narrow.same_cache(full) and narrow != full
    first, second = random_ids(rng, 9), random_ids(rng, 5)
    sequences = [started(engine, full, first[:4]), started(engine, full, second[:2])]
    paused = engine.pause(sequences, full, [first[4:], second[2:]], [0, 2, 4, 5, 7])
    for plan in (narrow, full, narrow):
        alone = [
            prefilled(engine, engine.new_sequence(plan, "f32"), plan, ids, logits="all")
            for ids in (first, second)
        ]
        wanted = np.concatenate([alone[0][[4, 6, 8]], alone[1][[2, 4]]])
        assert np.array_equal(engine.resume(paused, plan), wanted)
    assert [len(sequence) for sequence in sequences] == [9, 5]
    assert len(paused) == 5 and paused.rows.tables.count(None) == 1


def test_paused_tokens_refuse_another_family(
    engine: Engine, plans: dict[str, Plan], rng: np.random.Generator
) -> None:
    full = plans["full"]
    sequence = engine.new_sequence(full, "f32")
    paused = engine.pause([sequence], full, [random_ids(rng, 3)], [2])
    other = Plan(full.layers, (32, *full.ffn_width[1:]), full.num_owners)
    with pytest.raises(PlanError, match="another exact family"):
        engine.resume(paused, other)
    with pytest.raises(InputError, match="at most"):
        engine.pause([sequence], full, [random_ids(rng, 3), random_ids(rng, 3)], [0])
    assert len(sequence) == 3
