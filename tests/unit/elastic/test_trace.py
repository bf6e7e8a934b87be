"""Traces: written, read, replayed, broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.elastic import LATENCY, ladder
from matryo.elastic.load import Reading
from matryo.elastic.policy import Policy, Rules
from matryo.elastic.simulate import Conditions, simulate
from matryo.elastic.trace import Decision, Recorder, read_trace, replay
from matryo.errors import InputError


@pytest.fixture(scope="module")
def decisions() -> list[Decision]:
    return simulate(LATENCY, lambda t: Conditions(600e6 if 3 <= t < 9 else 1250e6), 20)


@pytest.fixture
def path(tmp_path: Path, decisions: list[Decision]) -> Path:
    recorder = Recorder(tmp_path / "trace.jsonl", LATENCY)
    for decision in decisions:
        recorder.note(decision)
    return tmp_path / "trace.jsonl"


def test_a_trace_comes_back_as_it_was(path: Path, decisions: list[Decision]) -> None:
    assert read_trace(path) == (LATENCY, decisions)


def test_replaying_gives_the_same_decisions(path: Path) -> None:
    rules, recorded = read_trace(path)
    assert len({one.setting.level for one in recorded}) > 1
    assert list(replay(rules, [one.reading for one in recorded])) == recorded


def test_another_policy_decides_otherwise_on_the_same_readings(path: Path) -> None:
    _, recorded = read_trace(path)
    lax = Rules(policy=Policy(kind="latency", target_seconds=10.0), levels=ladder())
    again = list(replay(lax, [one.reading for one in recorded]))
    assert {one.setting.level for one in again} == {0}


def test_a_trace_that_was_cut_off_keeps_its_whole_lines(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    whole = len(read_trace(path)[1])
    path.write_text(text[:-30], encoding="utf-8")
    assert len(read_trace(path)[1]) == whole - 1


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", "no json", '{"matryo_trace": 9}', '{"matryo_trace": 1, "levels": []}']
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="line 1 is not the beginning of a trace"):
        read_trace(path)


@pytest.mark.parametrize("change", [{"level": 99}, {"level": -1}, {"speed": 1}])
def test_a_broken_line_is_named(path: Path, change: dict[str, int]) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    document = json.loads(lines[3])
    document["setting"] |= change
    lines[3] = json.dumps(document)
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match="line 4 is not a decision"):
        read_trace(path)


def test_unknown_values_are_left_out_of_the_file() -> None:
    assert Reading(seconds=1.0).to_json().keys().isdisjoint({"battery", "temperature"})
