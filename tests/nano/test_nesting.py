"""Decoders that are compared differ in what they are compared for, and in nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scripts.nano import nesting, page
from scripts.nano.tasks import BITS, Json

from matryo.evaluate.intervals import Bootstrap
from matryo.train.recipe import Recipe


def test_the_runs_read_the_same_rows_with_the_same_rates(tmp_path: Path) -> None:
    recipes = [nesting.recipe(tmp_path, tmp_path, name, 600, 64) for name in nesting.OBJECTIVES]
    assert all(one["rows"] * one["accumulate"] == 64 for one in recipes)
    for one in recipes:
        del one["objective"], one["output"]
    assert recipes[0] == recipes[1] == recipes[2]


def test_a_pass_in_common_costs_less_than_two(tmp_path: Path) -> None:
    def cost(name: str, steps: int) -> float:
        return nesting.cost(nesting.recipe(tmp_path, tmp_path, name, steps, 64))

    width, alone, depth = (cost(name, 200) for name in ("width", "alone", "depth"))
    # `width` draws the largest in nearly half of its steps; `depth` computes it in every one, and
    # of the smaller size no more than its head: less than a step of each by itself.
    assert alone < width < depth < 1.7 * width
    assert cost("depth", 400) == pytest.approx(2 * depth)


def test_a_finished_run_of_other_steps_or_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()

    def given(name: str = "width", steps: int = 600, rows: int = 64) -> Json:
        return nesting.recipe(tmp_path, tmp_path, name, steps, rows)

    (tmp_path / "width" / "hf").mkdir(parents=True)
    made = Recipe.from_file(nesting.written(given()), ["threads=1"]).to_json()
    (tmp_path / "width" / "recipe.json").write_text(json.dumps(made))
    assert nesting.train(given(), 1) == tmp_path / "width" / "hf"
    with pytest.raises(SystemExit, match=r"width holds .* schedule was .*600.*, is .*400.*delete"):
        nesting.train(given(steps=400), 1)
    with pytest.raises(SystemExit, match="accumulate was 4, is 2; delete it, or choose"):
        nesting.train(given(rows=32), 1)


@pytest.mark.parametrize("rows", [0, 24, 40])
def test_rows_that_fill_no_batches_are_refused(tmp_path: Path, rows: int) -> None:
    with pytest.raises(SystemExit, match=f"--rows is {rows}; expected up to 16, or a multiple"):
        nesting.recipe(tmp_path, tmp_path, "width", 600, rows)


def test_percent_are_of_the_same_rows() -> None:
    theirs = np.array([[2.0, 8.0]] * 20 + [[6.0, 8.0]] * 20)
    ours = theirs * [1.03, 1.0]
    found = nesting.more_bits(Bootstrap(40, 0), BITS, ours, theirs)
    # What is hard for both cancels out: the bits vary by a factor of three, their ratio does not.
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 3.0, 3.0))


def test_the_page_has_a_column_for_each() -> None:
    figure = {"value": 2.0, "low": 1.5, "high": 2.5}
    run = {"steps": 600, "effective_parameters": {"small": 1_000_000}}
    lines = list(
        page.nesting(
            {
                "rows_a_step": 64,
                "runs": {"width": run},
                "compared": ["small of width", "small of alone"],
                "differences": ["small of width beside small of alone"],
                "tasks": {"prose": {"items": 3, "bits": [figure] * 2, "percent": [figure]}},
            }
        )
    )
    assert [line.count("|") for line in lines[-3:]] == [5, 5, 5]
    assert "`width` 600" in lines[0] and "`small` 1.00 M" in lines[2]


def test_all_kinds_alike_is_the_ratio_of_the_mean_bits() -> None:
    """Its interval is narrower than either's: the kinds are independent."""
    ours, theirs = (3.0, 2.2), (2.0, 2.0)
    percent = [{"value": v, "low": v - 3, "high": v + 4} for v in (50.0, 10.0)]
    found = page.pooled(percent, theirs)
    assert found["value"] == pytest.approx(100 * (sum(ours) / sum(theirs) - 1))
    assert (found["low"], found["high"]) == pytest.approx((30 - 3 / 2**0.5, 30 + 4 / 2**0.5))
    assert page.pooled(percent[:1], [0.7]) == pytest.approx(percent[0])
