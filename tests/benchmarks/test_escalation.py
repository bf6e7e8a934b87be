"""The report on escalation, small: it reads as a session writes, and compares what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.drift import behind, compared, divergence, reanchored
from benchmarks.escalation import PROMPT, Moved, fixed, measure, moved, pair, walk, walk_all
from benchmarks.kept import Kept
from benchmarks.passages import read_passages

import matryo
from matryo.elastic.calibrate import look
from matryo.elastic.complexity import MODES, Escalation, Thresholds

PASSAGES = [[2, *range(300 + 7 * n, 339 + 7 * n)] for n in range(4)]
ALWAYS = Thresholds(above=0.01, below=0.0, window=1)
NEVER = Thresholds(above=99.0, below=0.0)


def escalation(
    model: matryo.Model, thresholds: Thresholds, mode: str = "approximate"
) -> Escalation:
    chosen = next(one for one in MODES if one == mode)
    return Escalation(pair(model, chosen)[1], model.default_plan, chosen, thresholds)


def middle(model: matryo.Model) -> Thresholds:
    """Thresholds that about half of the tokens are above."""
    small = pair(model, "approximate")[1]
    seen = look(model, PASSAGES, small, model.default_plan, "entropy")
    doubt = float(np.median(seen.doubt))
    return Thresholds(above=doubt, below=0.9 * doubt, window=1, dwell=1)


def test_a_walk_that_never_changes_is_the_small_size_alone() -> None:
    with matryo.load() as model:
        run = walk_all(model, PASSAGES, escalation(model, NEVER))
        alone = fixed(model, PASSAGES, pair(model, "approximate")[1])
    assert run["losses"] == pytest.approx(alone["losses"], abs=1e-9)
    assert (run["by_small"], run["by_large"], run["recomputed"]) == (run["tokens"], 0, [])


@pytest.mark.parametrize(("mode", "same"), [("exact", True), ("reanchor", True),
                                            ("approximate", False)])  # fmt: skip
def test_a_walk_that_changes_at_once_is_the_large_size_where_the_cache_is_its_own(
    mode: str, same: bool
) -> None:
    with matryo.load() as model:
        run = walk_all(model, PASSAGES, escalation(model, ALWAYS, mode))
        alone = fixed(model, PASSAGES, model.default_plan)
    assert (run["losses"] == pytest.approx(alone["losses"], abs=1e-9)) is same
    assert run["by_small"] == len(PASSAGES)  # the first token of each, computed again
    assert run["recomputed"] == [PROMPT if mode == "reanchor" else 1] * len(PASSAGES)


def test_a_walk_is_what_a_session_does() -> None:
    """The text that a session chose itself is read with the same changes of size."""
    sampling = matryo.Sampling(temperature=1.0, top_k=0, top_p=1.0, seed=1)
    with matryo.load() as model:
        large = model.default_plan
        mask = np.ones(model.config.vocab_size, np.bool_)
        mask[list(model._opened.eos_ids)] = False  # the answer does not end by itself
        thresholds = middle(model)
        session = model.session()
        events = list(
            session.generate(
                PASSAGES[0][:PROMPT],
                max_tokens=40,
                sampling=sampling,
                logit_mask=mask,
                escalation=escalation(model, thresholds),
            )
        )
        out = walk(model, session.ids, escalation(model, thresholds))
        by_large = [model.plans[event.plan] == large for event in events if event.kind == "token"]
    assert by_large == out.taken
    assert 0 < sum(out.taken) < len(out.taken) == 40


def test_moved_decisions_cost_the_same() -> None:
    with matryo.load() as model:
        run = walk_all(model, PASSAGES, escalation(model, middle(model)))
        told = moved(run["taken"], seed=3)
        _, small = pair(model, "approximate")
        beside = walk_all(
            model, PASSAGES, Moved(small, model.default_plan, "approximate", decisions=iter(told))
        )
    assert "".join(beside["taken"]) == "".join("1" if one else "0" for one in told)
    assert "".join(beside["taken"]).count("1") == "".join(run["taken"]).count("1") > 0
    assert beside["taken"] != run["taken"]


def test_divergence() -> None:
    logits = np.array([[0.0, 1.0, 2.0], [3.0, 0.0, -1.0]], np.float32)
    assert divergence(logits, logits + 5.0) == pytest.approx([0.0, 0.0], abs=1e-7)
    p, q = np.array([0.75, 0.25]), np.array([0.5, 0.5])
    found = divergence(np.log(p)[None].astype(np.float32), np.log(q)[None].astype(np.float32))
    assert found == pytest.approx([float((p * np.log(p / q)).sum())], abs=1e-6)


def test_drift_is_none_after_an_exact_writer_or_a_new_anchor() -> None:
    with matryo.load() as model:
        large, (_, small) = model.default_plan, pair(model, "approximate")
        (alone,) = behind(model, PASSAGES[0], large, large, [16], 8)
        (exact,) = behind(model, PASSAGES[0], pair(model, "exact")[1], large, [16], 8)
        (other,) = behind(model, PASSAGES[0], small, large, [16], 8)
        again = reanchored(model, PASSAGES[:1], small, large, [16], 8)
    assert compared(alone, exact, None)["same_bits"] == 1.0
    assert compared(alone, other, None)["same_bits"] == 0.0
    assert compared(alone, other, None)["kl"] > 0.0
    assert again["places"]["16"][0]["same_bits"] == 1.0


def test_a_stopped_measurement_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "escalation.json"
    with matryo.load() as model:
        passages, _ = read_passages(model, None, 48, 8)
        measure(model, Kept(path, {"seed": 0}), passages, 0)
        whole = json.loads(path.read_text(encoding="utf-8"))
        last = list(whole["parts"])[-1]
        path.write_text(
            json.dumps({**whole, "parts": {k: v for k, v in whole["parts"].items() if k != last}}),
            encoding="utf-8",
        )
        measure(model, Kept(path, {"seed": 0}), passages, 0)
    again = json.loads(path.read_text(encoding="utf-8"))
    kept = [key for key in whole["parts"] if key != last]
    assert all(again["parts"][key] == whole["parts"][key] for key in kept)
    assert again["parts"][last]["losses"] == whole["parts"][last]["losses"]
    assert Kept(path, {"seed": 1}).document["parts"] == {}


def test_passages_of_a_text_that_is_too_short(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("The house was old. " * 20, encoding="utf-8")
    with matryo.load() as model:
        passages, about = read_passages(model, short, 20, 3)
        assert [len(one) for one in passages] == [20] * 3 and about["text"] == "short.txt"
        with pytest.raises(SystemExit, match="tokens"):
            read_passages(model, short, 400, 8)
