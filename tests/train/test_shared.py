"""Passes that have their first layers in common compute them once, with the same losses and
gradients; a rung that is the beginning of the widest costs its head alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.recipes import write_recipe
from matryo.errors import ConfigError
from matryo.plan import Plan, full_plan
from matryo.train.decoder import NestedLayer, Shared
from matryo.train.journal import read
from matryo.train.loop import main
from matryo.train.meter import operations
from matryo.train.nested import hidden_states, shape_of
from matryo.train.recipe import Recipe
from matryo.train.widths import Pass
from train.test_nested import assert_same, gradients, token_rows


def plans(config: Any) -> list[Plan]:
    """All layers; the first eleven of them; narrower from layer 7; from layer 2, one left out."""
    wide = full_plan(config)
    half = tuple(64 if layer >= 7 else width for layer, width in enumerate(wide.ffn_width))
    kept = tuple(layer for layer in wide.layers if layer != 12)
    early = tuple(64 if layer >= 2 else wide.ffn_width[layer] for layer in kept)
    return [
        wide,
        Plan(wide.layers[:11], wide.ffn_width[:11], wide.num_owners),
        dataclasses.replace(wide, ffn_width=half),
        Plan(kept, early, wide.num_owners),
    ]


def sum_of(model: Any, chosen: list[Plan], known: Shared | None) -> torch.Tensor:
    rows, total = token_rows(), torch.zeros(())
    for number, plan in enumerate(chosen):
        hidden = hidden_states(model, plan, known, input_ids=rows)
        total = total + (number + 1) * hidden.square().mean() + hidden[..., 0].mean()
    return total


def test_shared_passes_are_separate_ones(
    nested_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = plans(shape_of(nested_model.config))
    wanted = sum_of(nested_model, chosen, None)
    expected = gradients(nested_model, wanted)
    computed, once = list[int](), NestedLayer.computed

    def counted(layer: NestedLayer, *args: Any, **kwargs: Any) -> Any:
        computed.append(layer.layer_idx)
        return once(layer, *args, **kwargs)

    monkeypatch.setattr(NestedLayer, "computed", counted)
    got = sum_of(nested_model, chosen, Shared())
    assert got.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert_same(gradients(nested_model, got), expected, unused=True)
    assert computed == [*range(15), *range(7, 15), *(n for n in range(2, 15) if n != 12)]


def test_a_pass_without_gradients_leaves_nothing_for_one_with_them(nested_model: Any) -> None:
    plan, known = full_plan(shape_of(nested_model.config)), Shared()
    with torch.no_grad():
        hidden_states(nested_model, plan, known, input_ids=token_rows())
    assert hidden_states(nested_model, plan, known, input_ids=token_rows()).requires_grad


def test_shared_layers_are_counted_once(nested_model: Any) -> None:
    config = shape_of(nested_model.config)
    wide, first, late, early = (Pass("", plan, 0.25) for plan in plans(config))
    apart = operations(config, (wide, late), 32, 16)
    together = operations(config, (wide, late), 32, 16, shares=True)
    alone = operations(config, (wide,), 32, 16)
    assert alone < together < apart
    assert together - alone < operations(config, (wide, early), 32, 16, shares=True) - alone
    assert operations(config, (wide, first), 32, 16, shares=True) < together


def test_a_run_learns_the_same_from_shared_passes(tmp_path: Path) -> None:
    config = {"small": {"layers": [0, 1, 2, 3], "ffn_width": 64}, "large": {"ffn_width": 64}}
    curves = []
    for name in ("separate", "shared"):
        (tmp_path / name).mkdir()
        path = write_recipe(
            tmp_path / name,
            model__plans=config,
            objective={"mode": "sum", "divergence": 0.5, "mixes": 1, "nesting": name},
        )
        main(Recipe.from_file(path), say=lambda message: None)
        curves.append([one["losses"] for one in read(tmp_path / name / "out") if "losses" in one])
    for got, wanted in zip(*curves, strict=True):
        assert got == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(ConfigError, match="nesting is shared"):
        Recipe.from_file(path, ["recompute=true"])
