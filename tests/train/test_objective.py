"""One pass' loss: transformers' own without a teacher, and pulled towards the teacher with one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from matryo.plan import full_plan, presets
from matryo.train.nested import shape_of
from matryo.train.objective import LossWeights, NestedObjective, relative_distance
from train.test_nested import gradients, loss_of, token_rows


def test_a_pass_is_the_loss_of_transformers(nested_model: Any) -> None:
    rows, plan = token_rows(), presets(shape_of(nested_model.config))["e2b"]
    wanted = loss_of(nested_model, rows, plan)
    expected = gradients(nested_model, wanted)
    objective = NestedObjective(nested_model, LossWeights(), logits=5 * 544)
    got = objective(rows[:, :-1], rows[:, 1:], plan)
    assert got.loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    for name, value in gradients(nested_model, got.loss).items():
        scale = max(float(expected[name].abs().max()), 1e-9)
        assert float((value - expected[name]).abs().max()) <= 3e-5 * scale, name


def test_the_widest_rung_teaches_without_learning(nested_model: Any) -> None:
    config, rows = shape_of(nested_model.config), token_rows()
    ids, labels, narrow = rows[:, :-1], rows[:, 1:], presets(config)["e2b"]
    weights = LossWeights(cross_entropy=0.5, divergence=1.0, hidden=0.25, temperature=2.0)
    objective = NestedObjective(nested_model, weights)
    widest = objective(ids, labels, full_plan(config))
    assert widest.loss.item() == pytest.approx(widest.cross_entropy.item())
    taught = objective(ids, labels, narrow, widest.hidden)
    assert taught.divergence > 0.1 and taught.distance > 0.01
    assert taught.loss.item() == pytest.approx(
        (0.5 * taught.cross_entropy + taught.divergence + 0.25 * taught.distance).item(), rel=1e-5
    )
    nested_model.zero_grad(set_to_none=True)
    taught.loss.backward()
    outside = nested_model.model.layers[7].self_attn.q_proj.weight.grad
    assert outside is None or not outside.any()  # a layer only the teacher has
    itself = objective(ids, labels, full_plan(config), widest.hidden)
    assert abs(itself.divergence.item()) < 1e-5 and itself.distance.item() < 1e-9


def test_the_distance_is_relative_to_the_teacher() -> None:
    target = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert relative_distance(torch.zeros(2, 2), target).item() == pytest.approx(1.0)
    assert relative_distance(target * 3, target).item() == pytest.approx(4.0)
    assert relative_distance(target, target).item() == 0.0
