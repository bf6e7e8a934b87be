"""Passes in bfloat16: near the losses of float32, and as exact to continue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.recipes import write_recipe
from matryo.train import resume
from matryo.train.journal import read
from matryo.train.loop import main
from matryo.train.recipe import Recipe


def curve(path: Path, *runs: str) -> list[dict[str, Any]]:
    for settings in runs:
        main(Recipe.from_file(path, settings.split()), say=lambda message: None)
    return [record for record in read(path.parent / "out") if "losses" in record]


def test_bfloat16_runs_and_continues_exactly(tmp_path: Path) -> None:
    found = {}
    for name, precision, runs in (
        ("whole", "bf16", ("schedule.steps=4",)),
        ("torn", "bf16", ("schedule.steps=2", "schedule.steps=4")),
        ("float32", "f32", ("schedule.steps=4",)),
    ):
        (tmp_path / name).mkdir()
        path = write_recipe(
            tmp_path / name,
            precision=precision,
            schedule__decay=0.0,
            objective={"mode": "sum", "divergence": 0.5},
        )
        found[name] = curve(path, *runs)
    keys = ("step", "losses", "divergences", "gradient_norm")
    whole, torn = ([{key: one[key] for key in keys} for one in found[n]] for n in ("whole", "torn"))
    assert whole == torn
    for got, wanted in zip(found["whole"], found["float32"], strict=True):
        assert got["losses"] == pytest.approx(wanted["losses"], rel=0.01)
        assert got["losses"] != wanted["losses"]
    saved = resume.newest(tmp_path / "whole" / "out" / "checkpoints")
    assert saved is not None
    weights = torch.load(saved, weights_only=True)["weights"]
    assert {value.dtype for value in weights.values()} == {torch.float32}
