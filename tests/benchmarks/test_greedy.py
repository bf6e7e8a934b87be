"""The comparison of greedy answers: it compares, and notices a token that differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.greedy import compare, measure
from benchmarks.kept import Kept

import matryo


def test_answers_are_the_same_however_they_are_guessed(tmp_path: Path) -> None:
    path = tmp_path / "greedy.json"
    with matryo.load() as model:
        smallest = next(iter(model.plans))
        measure(model, Kept(path, {}), (smallest, "lookup"), tokens=60, length=30)
    parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
    assert [len(ids.split()) for ids in parts.pop("plain")["answers"]] == [30, 30]
    assert len(parts) == 4 and all(part["tokens"] == 60 for part in parts.values())
    forced = [part for key, part in parts.items() if "in turn" in key]
    assert all(part["drafted"] >= part["accepted"] for part in parts.values())
    assert sum(part["drafted"] for part in forced) > 0 < sum(part["accepted"] for part in forced)


def test_an_answer_that_differs_is_an_error() -> None:
    prompt = list(range(300, 316))
    with matryo.load() as model, pytest.raises(AssertionError, match="token 0 behind"):
        compare(model, [prompt], [[5] * 4], "lookup", forced=True)
