"""Rates and decay reach the weights they are meant for; Muon's steps are orthogonal."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.optim import AdamW, Optimizer

from matryo.train.adapters import attach
from matryo.train.optimizer import Muon, make_optimizers, orthogonalised, set_rate
from matryo.train.recipe import AdapterRecipe, OptimizerRecipe


def test_every_weight_is_in_one_group_of_its_kind(nested_model: Any) -> None:
    recipe = OptimizerRecipe(
        name="muon", rate=0.1, embedding_rate=0.2, vector_rate=0.3, weight_decay=0.5
    )
    optimizers = make_optimizers(nested_model, recipe)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    placed = [id(weight) for group in groups for weight in group["params"]]
    named = {id(weight): name for name, weight in nested_model.named_parameters()}
    assert sorted(placed) == sorted(named)
    for group in groups:
        for name in (named[id(weight)] for weight in group["params"]):
            kind = 0.2 if "embed_tokens" in name else 0.1 if ".mlp." in name else None
            kind = 0.3 if "norm" in name or ".altup." in name else kind
            assert kind in (None, group["lr"]), name
            assert (group["weight_decay"] > 0) == (group["lr"] == 0.1)
    set_rate(optimizers, 0.5)
    assert sorted({group["lr"] for group in groups}) == [0.05, 0.1, 0.15]


@pytest.mark.parametrize(("ends", "kind"), [((".weight",), Muon), (("norm.weight",), AdamW)])
def test_weights_of_one_kind_need_one_optimizer(
    nested_model: Any, ends: tuple[str, ...], kind: type[Optimizer]
) -> None:
    model = copy.deepcopy(nested_model)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.endswith(ends) and (".mlp." in name or kind is AdamW))
    made = make_optimizers(model, OptimizerRecipe(name="muon"))
    assert [type(one) for one in made] == [kind]


# peft asks transformers by an old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_is_trained_by_muon(nested_model: Any) -> None:
    model = copy.deepcopy(nested_model)
    attach(model, AdapterRecipe(rank=2))
    (muon,) = make_optimizers(model, OptimizerRecipe(name="muon"))
    factors = [weight for name, weight in model.named_parameters() if ".lora_" in name]
    assert {id(w) for w in muon.param_groups[0]["params"]} == {id(w) for w in factors}


@pytest.mark.parametrize("shape", [(8, 20), (20, 8)])
def test_an_orthogonalised_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    update = orthogonalised(matrix)
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.6 and values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert float(torch.trace((left @ right).T @ update)) > 0.85 * min(shape)  # the same directions


def test_a_weight_without_a_gradient_stays(nested_model: Any) -> None:
    weights = [torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2)]
    weights[0].grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    optimizer = Muon(weights, 0.1, weight_decay=0.1)
    optimizer.step()
    assert not torch.equal(weights[0], torch.ones(4, 4)) and torch.equal(
        weights[1], torch.ones(4, 4)
    )
    saved = copy.deepcopy(optimizer.state_dict())
    again = Muon([torch.nn.Parameter(w.detach().clone()) for w in weights], 0.1, 0.1)
    again.load_state_dict(saved)
    again.param_groups[0]["params"][0].grad = weights[0].grad.clone()
    optimizer.step(), again.step()
    assert torch.equal(again.param_groups[0]["params"][0], weights[0])


def test_a_filter_is_the_matrix_from_what_it_sees() -> None:
    flat = torch.nn.Parameter(torch.zeros(6, 4 * 3 * 3))
    filters = torch.nn.Parameter(torch.zeros(6, 4, 3, 3))
    flat.grad = torch.randn(flat.shape, generator=torch.Generator().manual_seed(1))
    filters.grad = flat.grad.reshape(filters.shape).clone()
    Muon([flat, filters], 0.1, weight_decay=0.0).step()
    assert flat.abs().max() > 0 and torch.equal(filters.reshape(flat.shape), flat)
