"""Escalation: a pure decision, exact where it says so, and thresholds that mean what they say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import matryo
from helpers.models import text_model
from helpers.sessions import make_runtime, new_session, text_files
from matryo.elastic.calibrate import Seen, look, nearest, replay, table
from matryo.elastic.complexity import (
    MODES,
    Escalation,
    Mode,
    State,
    Thresholds,
    decide,
    uncertainty,
)
from matryo.errors import InputError
from matryo.plan import Plan
from matryo.sampling import GREEDY
from matryo.session.runtime import Runtime


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    model = text_model(max_position_embeddings=400)
    return make_runtime(text_files(tmp_path_factory.mktemp("text")), model)


def family(runtime: Runtime) -> tuple[Plan, Plan]:
    """Two plans that write the same K/V: the upper layers narrow, and everything."""
    full = runtime.plans["full"]
    below = full.num_owners - 1
    widths = (*full.ffn_width[:below], *[32] * (len(full.layers) - below))
    return Plan(full.layers, widths, full.num_owners), full


def always(large: bool) -> Thresholds:
    edge = -1.0 if large else 1e9
    return Thresholds(window=1, above=edge, below=edge, dwell=0)


def test_uncertainty_is_the_entropy_or_the_margin() -> None:
    logits = np.array([1.0, 3.0, -np.inf, 2.5], np.float32)
    share = np.exp([1.0, 3.0, 2.5]) / np.exp([1.0, 3.0, 2.5]).sum()
    expected = -(share * np.log(share)).sum()
    assert uncertainty(logits, "entropy") == pytest.approx(expected, rel=1e-5)
    assert uncertainty(logits, "margin") == -0.5
    assert uncertainty(np.zeros(64, np.float32), "entropy") == pytest.approx(math.log(64), rel=1e-5)
    assert uncertainty(np.array([0, 900], np.float32), "entropy") == 0.0


def test_a_size_is_taken_by_the_mean_of_a_window_and_kept_for_a_while() -> None:
    rules = Thresholds(window=2, above=2.0, below=1.0, dwell=3)
    state, sizes = State(), []
    for value in (1.0, 2.5, 2.5, 0.0, 0.0, 0.0, 0.0, 2.0, 3.0):
        state = decide(rules, state, value)
        sizes.append(state.large)
    assert sizes == [False, False, True, True, True, True, False, False, True]


def answer(runtime: Runtime, escalation: Escalation | None, plan: str | Plan = "full") -> list[int]:
    session = new_session(runtime, plan)
    for _ in session.generate([5, 6, 7, 8], max_tokens=40, sampling=GREEDY, escalation=escalation):
        pass
    return session.ids


@pytest.mark.parametrize("mode", MODES)
def test_always_and_never_unsure_are_the_two_sizes(runtime: Runtime, mode: Mode) -> None:
    small, large = family(runtime)
    never = Escalation(small, large, mode, always(large=False))
    assert answer(runtime, never) == answer(runtime, None, small)
    assert (never.small_tokens, never.large_tokens) == (40, 0)
    ever = Escalation(small, large, mode, always(large=True))
    assert answer(runtime, ever) == answer(runtime, None, large)
    assert (ever.small_tokens, ever.large_tokens, ever.again) == (1, 40, 1)


def test_each_token_is_that_of_the_size_that_chose_it(runtime: Runtime) -> None:
    """In an exact family an answer of both is explained token by token by one size or the other."""
    small, large = family(runtime)
    rules = Thresholds(measure="margin", window=1, above=-0.6, below=-0.6, dwell=0)
    session = new_session(runtime, small)
    escalation = Escalation(small, large, "exact", rules)
    prompt, sizes, changes = [5, 6, 7, 8], list[str](), 0
    names = {runtime.plan_name(small): small, runtime.plan_name(large): large}
    for event in session.generate(prompt, max_tokens=60, sampling=GREEDY, escalation=escalation):
        assert session.is_exact
        if event.kind == "token":
            sizes.append(event.plan)
        elif event.kind == "size":
            changes += 1
            assert event.reason and ("sure" in event.reason)
    assert changes >= 4 and set(sizes) == set(names)
    for index in (0, 7, 20, 33, 59):
        # A token chosen just before a change back was computed by the size that was left.
        alone = {}
        for name, plan in names.items():
            other = new_session(runtime, plan)
            list(other.generate(session.ids[: 4 + index], max_tokens=1, sampling=GREEDY))
            alone[name] = other.ids[-1]
        assert session.ids[4 + index] in alone.values()
        if sizes[index] == runtime.plan_name(large):
            assert session.ids[4 + index] == alone[sizes[index]]


def test_reanchor_makes_the_cache_exact_where_it_pays(runtime: Runtime) -> None:
    small, large = runtime.plans["e2b"], runtime.plans["full"]
    late = Thresholds(window=1, above=0.0, below=-1.0)
    for mode, exact in (("approximate", False), ("reanchor", True)):
        session = new_session(runtime)
        escalation = Escalation(small, large, mode, late)  # type: ignore[arg-type]
        list(session.generate([5] * 20, max_tokens=60, sampling=GREEDY, escalation=escalation))
        assert session.is_exact == exact
    plain = new_session(runtime)
    list(plain.generate([5] * 20, max_tokens=60, sampling=GREEDY))
    assert session.ids == plain.ids
    short = Escalation(small, large, "reanchor", late)
    assert not short.should_reanchor(1000, 60) and short.should_reanchor(60, 60)


def test_sizes_and_modes_that_cannot_be_are_refused(runtime: Runtime) -> None:
    small, large = runtime.plans["e2b"], runtime.plans["full"]
    with pytest.raises(InputError, match="do not write the same K/V"):
        Escalation(small, large, "exact")
    with pytest.raises(InputError, match="two different sizes"):
        Escalation(large, small, "approximate")
    with pytest.raises(InputError, match="expected one of exact"):
        Escalation(small, large, "magic")  # type: ignore[arg-type]
    session = new_session(runtime)
    with pytest.raises(InputError, match="give one of them"):
        session.generate([5], draft="lookup", escalation=Escalation(small, large, "approximate"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"above": 1, "below": 2}',
        '{"above": "x"}',
        '{"window": 0}',
        '{"window": true}',
        '{"measure": "mood"}',
        '{"below": NaN}',
        '{"extra": 1}',
        "[" * 5000,
    ],
)
def test_a_broken_file_of_thresholds_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text(text)
    with pytest.raises(InputError):
        Thresholds.load(path)


def test_thresholds_are_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    thresholds = Thresholds(measure="margin", window=3, above=-0.5, below=-2.0, dwell=7)
    thresholds.save(path)
    assert Thresholds.load(path) == thresholds


def test_a_table_finds_the_tokens_where_the_large_size_helps() -> None:
    random = np.random.default_rng(0)
    doubt = random.uniform(0.0, 4.0, 4000)
    # The large size is better exactly where there is doubt.
    seen = Seen(doubt, doubt, np.where(doubt > 3.0, doubt - 1.0, doubt))
    rows = table(seen, "entropy", window=1, dwell=0)
    shares = [row.share for row in rows]
    assert shares == sorted(shares)
    for row in rows:
        assert row.thresholds.below <= row.thresholds.above
        assert row.share == pytest.approx(replay(row.thresholds, doubt).mean())
        assert seen.large.mean() <= row.loss <= seen.small.mean()
        if row.share < 0.6:
            assert row.loss < row.random_loss
    assert nearest(rows, 0.0) is rows[0] and nearest(rows, 1.0) is rows[-1]


def test_a_text_is_seen_by_both_sizes() -> None:
    with matryo.load() as model:
        small, *_, large = model.plans.values()
        ids = model.tokenizer.encode("The house was old and the garden had grown over it. " * 9)
        windows = [ids[:50], ids[50:90], ids[:1]]
        seen = look(model, windows, small, large, "entropy")
        assert len(seen.doubt) == len(seen.small) == len(seen.large) == 49 + 39
        logits = model.logits(ids[:2], plan=large).astype(np.float64)
        first = math.log(np.exp(logits[0] - logits[0, ids[1]]).sum())
        assert seen.large[0] == pytest.approx(first, rel=1e-5)
        with pytest.raises(InputError, match="at least 64"):
            look(model, [ids[:20]], small, large, "entropy")


def test_the_command_writes_thresholds_that_run_takes(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from matryo.cli.app import app

    text, file = tmp_path / "text.txt", tmp_path / "thresholds.json"
    text.write_text("She went to the window and looked at the sea for a long time. " * 20)
    asked = ["calibrate", "-t", str(text), "-o", str(file), "--share", "0.5", "--json"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert len(found["rows"]) == 8 and Thresholds.load(file).measure == "entropy"
    run = ["run", "The", "--raw", "-n", "4", "--temperature", "0", "--json"]
    told = CliRunner().invoke(app, [*run, "--escalate", "approximate", "--thresholds", str(file)])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout.splitlines()[-1])["tokens"] == 4
    alone = CliRunner().invoke(app, [*run, "--thresholds", str(file)])
    assert alone.exit_code == 1
