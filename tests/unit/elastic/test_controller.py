"""The controller on the embedded model: sessions that change size, pages that are given back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matryo.elastic.controller import Controller
from matryo.elastic.load import Reading
from matryo.elastic.memory import give_back, take_again
from matryo.elastic.trace import read_trace, replay
from matryo.errors import CapacityError, InputError, PlanError
from matryo.loading import Model, load
from matryo.sampling import GREEDY
from matryo.session import Event

PROMPT = [5, 6, 7, 8, 9, 10]
MB = 10**6


@pytest.fixture
def model() -> Iterator[Model]:
    """The embedded model, whose answers do not end by themselves."""
    with load() as opened:
        opened._opened.eos_ids = frozenset()
        yield opened


class FakeSensors:
    """A machine whose memory limit changes at given readings; a reading is always due."""

    def __init__(self, limits: dict[int, int], slow: range = range(0)) -> None:
        self._limits, self._slow = limits, slow
        self.count = 0
        self.limit: int | None = None

    def is_due(self) -> bool:
        return True

    def read(self, **known: Any) -> Reading:
        self.limit = self._limits.get(self.count, self.limit)
        known |= {"memory_limit": self.limit}
        if known["token_seconds"] is not None:
            known["token_seconds"] = 0.5 if self.count in self._slow else 0.05
        self.count += 1
        private = known["kv_bytes"]  # so that little else hides the weights' small files
        return Reading(seconds=0.2 * self.count, private_bytes=private, **known)


def controlled(model: Model, sensors: FakeSensors, **options: Any) -> Controller:
    rules = replace(model.controller(**options).rules, file_bytes=0)
    return Controller(rules, model._opened.weights, mapped=True, sensors=sensors)  # type: ignore[arg-type]


def run(model: Model, controller: Controller, count: int, ids: list[int] = PROMPT) -> list[Event]:
    session = model.session()
    events = list(session.generate(ids, max_tokens=count, sampling=GREEDY, controller=controller))
    sizes = [event for event in events if event.kind == "size"]
    assert all(event.reason and event.text == "" and event.token is None for event in sizes)
    return events


def needs(controller: Controller, level: int) -> int:
    """A limit that a level just meets."""
    one = controller.rules.levels[level]
    return one.weight_bytes + one.kv_bytes(60)


def sizes(events: list[Event]) -> list[str]:
    return [event.plan for event in events if event.kind == "size"]


def test_a_limit_that_comes_and_goes_changes_the_size_and_never_stops(model: Model) -> None:
    ladder = model.controller("memory").rules
    small = next(i for i, one in enumerate(ladder.levels) if one.name == "small")
    limit = needs(model.controller("memory"), small)
    sensors = FakeSensors({10: round(limit / 0.95) + 1000, 25: 10**12})
    events = run(model, controlled(model, sensors, policy="memory"), 50)
    assert sizes(events) == ["small", "large"]
    assert "limit" in str(next(e for e in events if e.kind == "size").reason)
    tokens = [event for event in events if event.kind == "token"]
    assert len(tokens) == 50 and events[-1].finish_reason == "length"
    assert {event.plan for event in tokens} == {"large", "small"}


def test_slow_tokens_change_the_size_within_the_stream(model: Model) -> None:
    sensors = FakeSensors({}, slow=range(10, 14))
    controller = controlled(model, sensors, policy="latency", target_seconds=0.1)
    events = run(model, controller, 60)
    assert len(sizes(events)) >= 2 and sizes(events)[0] != "large" and sizes(events)[-1] == "large"


def test_switches_inside_the_family_give_the_logits_of_the_plans_alone(model: Model) -> None:
    sensors = FakeSensors({}, slow=range(5, 8))
    controller = controlled(model, sensors, policy="latency", target_seconds=0.1, exact=True)
    session = model.session()
    events = list(session.generate(PROMPT, max_tokens=40, sampling=GREEDY, controller=controller))
    assert sizes(events) and session.is_exact
    names = {level.name: level.plan for level in controller.rules.levels}
    ids = session.ids
    for event in events:
        if event.kind == "token" and event.index % 5 == 4:
            before = ids[: len(PROMPT) + event.index + (len(ids) - len(PROMPT) - 40)]
            logits = model.logits(before, names[event.plan], "last")[0]
            assert event.token == int(_allowed_argmax(model, logits))


def _allowed_argmax(model: Model, logits: Any) -> int:
    logits = logits.copy()
    logits[model._runtime().suppressed] = float("-inf")
    return int(logits.argmax())


def test_the_leanest_level_stores_int8_and_forgets_the_beginning(model: Model) -> None:
    rules = model.controller("memory").rules
    last = len(rules.levels) - 1
    limit = needs(model.controller("memory"), last)
    controller = controlled(model, FakeSensors({3: limit}), policy="memory")
    session = model.session(kv="bf16")
    before = session.cache_bytes
    ids = [5 + i % 90 for i in range(700)]
    events = list(session.generate(ids, max_tokens=8, sampling=GREEDY, controller=controller))
    assert controller.level.kv == "int8" and controller.level.window == 512
    assert len(session) < 300 and session._sequence.cache.kind == "int8"
    assert session.cache_bytes < before + rules.levels[0].kv_bytes(700) // 2
    assert events[-1].stats.generated_tokens == 8
    assert session.ids[:200] == ids[-256 + 2 :][:200]  # two tokens came before the limit did


def test_a_duty_rests_after_each_token_and_a_cancellation_ends_the_rest(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    cancel = threading.Event()

    def sleep(seconds: float) -> None:
        rests.append(seconds)
        cancel.set()  # the first token's rest would last for ages

    monkeypatch.setattr("matryo.session.session.time.sleep", sleep)
    controller = model.controller("power", duty=0.01)
    session = model.session()
    events = list(
        session.generate(
            PROMPT, max_tokens=9, sampling=GREEDY, controller=controller, cancel=cancel
        )
    )
    assert controller.rest == pytest.approx(99.0) and len(rests) == 1
    assert events[-1].finish_reason == "cancelled"


def test_the_trace_of_a_session_replays(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    controller = model.controller("auto", memory_bytes=10**12, target_seconds=1.0, trace=path)
    run(model, controller, 5)
    rules, decisions = read_trace(path)
    assert rules == controller.rules and decisions
    assert list(replay(rules, [one.reading for one in decisions])) == decisions


def test_too_little_memory_names_the_nearest_size(model: Model) -> None:
    with pytest.raises(CapacityError, match=r"the nearest is tiny with K/V in int8 .* 512"):
        model.controller("memory", memory_bytes=2 * MB)


def test_what_cannot_be_asked_for_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no plan named 'huge'"):
        model.controller("auto", size="huge")
    with pytest.raises(InputError, match="kv: expected"):
        model.controller("auto", kv="q4")
    with pytest.raises(InputError, match="needs a target"):
        model.controller("latency")
    with pytest.raises(OSError):
        model.controller("auto", trace=tmp_path)
    with pytest.raises(InputError, match="give one of them"):
        model.session().generate(PROMPT, draft="lookup", controller=model.controller("auto"))


@pytest.mark.skipif(sys.platform != "linux", reason="resident pages are read from smaps")
def test_pages_outside_the_plan_are_given_back_and_come_again(model: Model) -> None:
    def resident() -> int:
        """Of the file that only the largest size reads; other tests may have it mapped too."""
        return model.ledger().row(outer.name).resident_bytes

    outer = max((row for row in model.ledger().rows if row.name.startswith("shell")), key=str)
    wanted = model.logits(PROMPT, "large", "last")
    small = model.plans["small"]
    before = resident()
    give_back(model._opened.weights, small)
    after = resident()
    assert before - after > 0.7 * outer.total_bytes
    assert (model.logits(PROMPT, "large", "last") == wanted).all()
    assert resident() - after > 0.7 * outer.total_bytes
    take_again(model._opened.weights, model.plans["large"], small)
