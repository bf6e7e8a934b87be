"""What a run exports is the mean of its last weights, also if it was stopped among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.recipes import write_recipe
from matryo.errors import ConfigError
from matryo.train import resume
from matryo.train.loop import main
from matryo.train.recipe import Recipe, ScheduleRecipe

OPTIONS: dict[str, Any] = {
    "schedule__steps": 6, "schedule__average": 0.5, "save_every": 1, "keep": 9,
    "export__dtype": "f32",
}  # fmt: skip


def run(path: Path, *settings: str) -> dict[str, torch.Tensor]:
    """The weights that are exported."""
    main(Recipe.from_file(path, settings), say=lambda message: None)
    return load_file(path.parent / "out/hf/model.safetensors")


def test_what_is_exported_is_the_mean_of_the_last_weights(tmp_path: Path) -> None:
    exported = run(write_recipe(tmp_path, **OPTIONS))
    saved = resume.every(tmp_path / "out/checkpoints")
    assert len(saved) == 6
    last = [torch.load(path, weights_only=True)["weights"] for path in saved[3:]]
    moved = 0
    for name in last[0].keys() & exported.keys():
        mean = torch.stack([weights[name] for weights in last]).mean(0)
        torch.testing.assert_close(exported[name], mean, rtol=1e-5, atol=1e-7)
        moved += not torch.equal(exported[name], last[-1][name])
    assert moved > 20


def test_a_run_that_stopped_among_them_has_the_same_mean(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, **OPTIONS)
    whole = run(path)
    resume.every(tmp_path / "out/checkpoints")[-1].unlink()
    again = run(path)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_longer_run_forgets_the_mean_of_the_shorter_one(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, **OPTIONS, schedule__decay=0.0)
    run(path, "schedule.steps=4")
    exported = run(path)
    (tmp_path / "b").mkdir()
    straight = run(write_recipe(tmp_path / "b", **OPTIONS, schedule__decay=0.0, output="out"))
    saved = resume.every(tmp_path / "out/checkpoints")
    last = [torch.load(one, weights_only=True)["weights"] for one in saved[4:]]
    name = "model.layers.0.mlp.gate_proj.weight"
    torch.testing.assert_close(exported[name], torch.stack([w[name] for w in last]).mean(0))
    assert not torch.equal(exported[name], straight[name])


def test_steps_that_were_taken_before_a_mean_was_asked_for_are_named(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, **OPTIONS)
    run(path, "schedule.steps=5", "schedule.average=0")
    with pytest.raises(ConfigError, match=r"mean from step 4 on, and 2 steps .*set it to 0, or"):
        run(path, "schedule.steps=5", "schedule.average=0.5")
    said: list[str] = []
    main(Recipe.from_file(path), say=said.append)  # the last of the three steps is left
    assert any("from step 4 on, and 2 steps were taken without it: it is over" in s for s in said)
    run(path)  # a mean of some of its steps is no reason to refuse the export


@pytest.mark.parametrize(("average", "first"), [(0.0, 11), (0.25, 9), (1.0, 1)])
def test_the_mean_begins_where_the_last_part_does(average: float, first: int) -> None:
    assert ScheduleRecipe(steps=10, average=average).first_averaged == first
