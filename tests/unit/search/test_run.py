"""A whole search: its plans can be used, were judged on other rows, and it goes on when stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matryo.errors import InputError, PlanError
from matryo.evaluate import Settings, Task, evaluate, read_task
from matryo.evaluate.likelihood import Scorer
from matryo.evaluate.store import Store
from matryo.loading import Model
from matryo.plan import Plan
from matryo.search import Found, SearchSettings, search
from matryo.search.measure import Meter, Speed
from matryo.search.report import draw, interval_text, markdown
from matryo.search.space import effective

SETTINGS = SearchSettings(
    budget_s=1e6, trials=6, evaluation=Settings(resamples=50, window=16), keep_bytes=1 << 28
)


def make_steady(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    """Times and memory that are functions of the plan, so that two searches can be compared."""

    def speed(self: Meter, plan: Plan) -> Speed:
        return Speed(sum(plan.ffn_width) / 1e3, sum(plan.ffn_width) / 1e2)

    def resident(self: Meter, plan: Plan) -> int:
        return 4 * effective(model.config, plan)

    monkeypatch.setattr(Meter, "speed", speed)
    monkeypatch.setattr(Meter, "resident_bytes", resident)
    monkeypatch.setattr(Meter, "calibrate", lambda self, known=None: Speed(1.0, 1.0))


@pytest.fixture(autouse=True)
def steady_machine(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    make_steady(monkeypatch, model)


def found_with(model: Model, task: Task, store: Path, settings: SearchSettings = SETTINGS) -> Found:
    with Store(store) as kept:
        return search(model, task, kept, settings)


@pytest.fixture(scope="module")
def plain(model: Model, task: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, Path]:
    """One search, and its file of plans."""
    with pytest.MonkeyPatch.context() as patch:
        make_steady(patch, model)
        directory = tmp_path_factory.mktemp("plain")
        found = found_with(model, task, directory / "s.sqlite")
    found.save(directory / "plans.json")
    return found, directory / "plans.json"


def test_plans_are_named_measured_and_can_be_used_as_sizes(
    model: Model, plain: tuple[Found, Path]
) -> None:
    found, file = plain
    assert {"small", "medium", "large"} <= set(found.candidates)
    assert [one.effective for one in found.candidates.values()] == sorted(
        one.effective for one in found.candidates.values()
    )
    assert found.trials == 6 and found.num_measured > len(found.changes) > 0
    for name, one in found.candidates.items():
        assert model.plan(f"{file}:{name}") == one.plan
        assert one.own == (name in model.plans)
    assert found.searched >= 4 and found.held_out >= 4


def test_what_is_reported_is_of_rows_the_search_did_not_see(
    model: Model, task: Task, plain: tuple[Found, Path]
) -> None:
    found, _ = plain
    whole = evaluate(model, task, ["small", "large"], SETTINGS.evaluation).parts[0]
    results = whole.results["small"]
    with_all = -sum(one["logprob"][0] for one in results)
    assert with_all > 0 and found.candidates["small"].quality.value > 0
    assert found.candidates["small"].quality.value != whole.figures["bits_per_byte"]["small"].value
    for name in ("small", "large"):  # the ends of the line are on it
        line = found.candidates[name].above_line
        assert line.value == pytest.approx(0.0, abs=1e-9)
        assert line.low == pytest.approx(0.0, abs=1e-9)


def test_the_gain_over_the_line_is_what_it_says(plain: tuple[Found, Path]) -> None:
    found, _ = plain
    small, large = found.candidates["small"], found.candidates["large"]
    for one in found.candidates.values():
        share = (one.effective - small.effective) / (large.effective - small.effective)
        line = small.quality.value + share * (large.quality.value - small.quality.value)
        assert one.above_line.value == pytest.approx(line - one.quality.value, abs=1e-9)


def test_a_search_that_was_stopped_goes_on_and_finds_the_same(
    model: Model, task: Task, plain: tuple[Found, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    original, calls, limit = Scorer.score, [0], [-1]

    def stopping(self: Scorer, plan: Plan, items: Any) -> Any:
        for one in original(self, plan, items):
            calls[0] += 1
            if calls[0] == limit[0]:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(Scorer, "score", stopping)
    for stop_after in (20, 150):
        limit[0], calls[0] = stop_after, 0
        with pytest.raises(KeyboardInterrupt):
            found_with(model, task, tmp_path / "s.sqlite")
    limit[0], calls[0] = -1, 0
    again = found_with(model, task, tmp_path / "s.sqlite")
    assert again.to_json() == plain[0].to_json()
    # Everything was computed once: the rows of the search for every plan, the others for few.
    held_out = again.held_out * len(again.candidates)
    assert calls[0] == again.num_measured * again.searched + held_out - (19 + 149)
    calls[0] = 0
    found_with(model, task, tmp_path / "s.sqlite")
    assert calls[0] == 0


def test_plans_of_a_family_share_what_is_below(
    model: Model, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorers: list[Scorer] = []
    original = Scorer.__init__

    def remembered(self: Scorer, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        scorers.append(self)

    monkeypatch.setattr(Scorer, "__init__", remembered)
    found_with(model, task, tmp_path / "s.sqlite")
    assert scorers[0].resumed > scorers[0].computed / 4


def test_a_file_of_plans_is_refused_by_another_model(
    plain: tuple[Found, Path], model: Model, tmp_path: Path
) -> None:
    _, file = plain
    document = json.loads(file.read_text())
    with pytest.raises(PlanError, match="holds several plans: write"):
        model.plan(str(file))
    with pytest.raises(PlanError, match=r"no plan 'huge'; there are .*small"):
        model.plan(f"{file}:huge")
    document["model"]["num_owners"] += 1
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    with pytest.raises(PlanError, match="was made for tiny, whose num_owners is"):
        model.plan(f"{other}:small")
    other.write_text(json.dumps({"format": "matryo-plans", "plans": []}))
    with pytest.raises(PlanError, match="expected an object of 1 to"):
        model.plan(f"{other}:small")
    other.write_text(json.dumps({"mine": model.plan("small").to_json()}))
    assert model.plan(f"{other}:mine") == model.plan("small")


def test_the_report_names_every_plan_and_the_picture_is_one(
    plain: tuple[Found, Path], tmp_path: Path
) -> None:
    found, file = plain
    document = json.loads(file.read_text())
    text = markdown(document, "p.png")
    for name in found.candidates:
        assert f"| {name} |" in text or f"| **{name}** |" in text
    assert "![" in text and "bits per byte, less is better" in text
    draw(document, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    draw(document, tmp_path / "p.svg")
    first = (tmp_path / "p.svg").read_bytes()
    assert b"above" not in first and b"<svg" in first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_s": 1e-9}, "a budget of 0 s is too small"),
        ({"metric": "wer"}, "no metric 'wer' here; there are bits_per_byte"),
        ({"part": "other"}, "has no part 'other'"),
        ({"evaluation": Settings(limit=3, window=16)}, "rows to search with"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    model: Model, task: Task, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        found_with(model, task, tmp_path / "s.sqlite", replace(SETTINGS, **changes))


def test_one_of_several_parts_has_to_be_chosen(model: Model, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": "a", "task": "x"}\n{"text": "b", "task": "y"}\n')
    with pytest.raises(InputError, match=r"has several parts: choose .* one of x, y"):
        found_with(model, read_task(file), tmp_path / "s.sqlite")


def test_intervals_are_written_with_what_is_known() -> None:
    assert interval_text({"value": 1.23456, "low": 1.0, "high": 2.0}) == "1.235 [1.000, 2.000]"
    assert interval_text({"value": -1e-9, "low": None, "high": None}, "+") == "+0.000"
    assert interval_text({"value": None, "low": None, "high": None}) == "-"
