"""Recipes: every key is known, of its type and in its range, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.recipes import write_recipe
from matryo.errors import ConfigError
from matryo.train.recipe import Recipe, ScheduleRecipe


def test_a_recipe_is_read_with_its_paths(tmp_path: Path) -> None:
    recipe = Recipe.from_file(write_recipe(tmp_path), ["schedule.steps=12", "optimizer.rate=1e-4"])
    assert recipe.output == tmp_path / "out"
    assert recipe.data.files == (tmp_path / "texts.jsonl",)
    assert recipe.schedule.steps == 12
    assert recipe.optimizer.rate == 1e-4  # which YAML 1.1 takes for text
    assert recipe.model.plans["small"]["ffn_width"] == 32
    assert recipe.to_json()["data"]["files"] == [str(tmp_path / "texts.jsonl")]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"schedule__step": 3}, "unknown key schedule.step; did you mean steps?"),
        ({"colour": 3}, "unknown key colour; there are"),
        ({"schedule__steps": "many"}, "schedule.steps is 'many'; expected a whole number"),
        ({"schedule__steps": 1.5}, "schedule.steps is 1.5"),
        ({"schedule__steps": True}, "schedule.steps is True"),
        ({"schedule__steps": 0}, "schedule.steps is 0; expected at least 1"),
        ({"schedule": {}}, "schedule.steps is missing"),
        ({"schedule": 3}, "schedule is 3; expected keys and values"),
        ({"optimizer__rate": "fast"}, "optimizer.rate is 'fast'; expected a number"),
        ({"optimizer__rate": float("inf")}, "optimizer.rate"),
        ({"optimizer__name": "sgd"}, "expected one of adamw, muon"),
        ({"data__files": "x.txt"}, "data.files is 'x.txt'; expected a list"),
        ({"data__files": []}, "data.files is empty"),
        ({"data__files": [3]}, r"data.files\[0\] is 3; expected a path"),
        ({"objective__rungs": {"small": "much"}}, "objective.rungs.small"),
        ({"objective__divergence": -1}, "objective.divergence is -1"),
        ({"recompute": 1}, "recompute is 1; expected true or false"),
        ({"model__start": "somewhere"}, "either start"),
        ({"model__plans": {}}, "model.plans is empty"),
        ({"export__packed": ["q2"]}, "expected one of f32, bf16, q8, q4"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Recipe.from_file(write_recipe(tmp_path, **changes))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"rows: 1\nrows: 2\n", "'rows' is given twice"),
        (b"rows: [1\n", "is not YAML"),
        (b"- 1\n", "must hold keys and values"),
        (b"\xff", "not UTF-8 at byte 0"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=text):
        Recipe.from_file(tmp_path / "r.yaml")


@pytest.mark.parametrize("setting", ["steps", "=3", "rows.x=3", "rows=[", "rows=0"])
def test_settings_that_do_not_fit(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError):
        Recipe.from_file(write_recipe(tmp_path), [setting])


def test_a_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Recipe.from_file(tmp_path / "none.yaml")


def test_the_rate_rises_stays_and_falls() -> None:
    line = ScheduleRecipe(steps=10, warmup=2, decay=0.4, final=0.1)
    scales = [line.scale(step) for step in range(10)]
    assert scales[:7] == pytest.approx([0.5, 1, 1, 1, 1, 1, 1])
    assert scales[7:] == pytest.approx([0.775, 0.55, 0.325])
    wave = ScheduleRecipe(steps=10, decay=1.0, shape="cosine")
    assert wave.scale(0) == 1.0 and wave.scale(5) == pytest.approx(0.5)
    assert ScheduleRecipe(steps=3, decay=0.0).scale(2) == 1.0
