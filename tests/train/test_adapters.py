"""Adapters slice with the plan, merge into what they adapt, and open in peft."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny import sliced_model
from matryo.errors import CheckpointError, ConfigError
from matryo.plan import Plan, presets
from matryo.train.adapters import attach, cut, merge, save
from matryo.train.nested import LanguageModel, hidden_states, nest, shape_of
from matryo.train.recipe import AdapterRecipe

IDS = torch.randint(0, 544, (2, 17), generator=torch.Generator().manual_seed(3))


# peft asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def adapted(tiny_hf_model: Any) -> Any:
    """A nested model with an adapter that has learned something."""
    torch.manual_seed(4)
    model = copy.deepcopy(tiny_hf_model)
    nest(model)
    attach(model, AdapterRecipe(rank=4, alpha=8.0))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.2)
    return model


def plan_of(model: LanguageModel) -> Plan:
    """Readers skipped, every layer of another width."""
    kept = (*range(5), *range(10, 15))
    return Plan(kept, tuple(64 * (1 + layer % 3) for layer in range(10)), 5)


def states(model: Any, plan: Plan | None = None) -> torch.Tensor:
    with torch.no_grad():
        return hidden_states(model, plan, input_ids=IDS) if plan else model.model(
            input_ids=IDS, use_cache=False
        ).last_hidden_state  # fmt: skip


def test_a_fresh_adapter_changes_nothing_and_is_all_that_learns(tiny_hf_model: Any) -> None:
    model = copy.deepcopy(tiny_hf_model)
    config = nest(model)
    names = attach(model, AdapterRecipe())
    plan = presets(config)["e2b"]
    plain = copy.deepcopy(tiny_hf_model)
    nest(plain)
    for one in (presets(config)["full"], plan):
        assert torch.allclose(states(model, one), states(plain, one), atol=1e-5)
    learns = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert len(learns) == 2 * len(names) and all(".lora_" in name for name in learns)
    # Readers compute no keys and values: factors of them would never learn.
    assert not any(".layers.7.self_attn.k_proj" in name for name in names)
    assert any(".layers.7.self_attn.q_proj" in name for name in names)
    hidden_states(model, plan, input_ids=IDS).square().sum().backward()
    b = model.model.layers[2].mlp.gate_proj.lora_B["default"].weight.grad
    a = model.model.layers[2].mlp.down_proj.lora_A["default"].weight
    width = plan.ffn_width[2]
    assert b[:width].any() and not b[width:].any()
    assert a.shape[1] > width


def test_a_plan_of_the_adapted_model_is_the_cut_out_model_with_the_cut_adapter(
    adapted: Any, tiny_hf_model: Any, tmp_path: Path
) -> None:
    plan = plan_of(adapted)
    got = states(adapted, plan)
    plain = copy.deepcopy(tiny_hf_model)
    nest(plain)
    assert not torch.allclose(got, states(plain, plan), atol=1e-2)
    save(adapted, tmp_path / "whole", "the model")
    cut(tmp_path / "whole", plan, tmp_path / "cut")
    from peft import PeftModel

    small = sliced_model(tiny_hf_model, plan.layers, plan.ffn_width)
    opened = PeftModel.from_pretrained(small, str(tmp_path / "cut"))
    assert torch.allclose(states(opened.base_model.model), got, atol=2e-5)


def test_merging_and_running_at_a_plan_commute(adapted: Any) -> None:
    plan, full = plan_of(adapted), presets(shape_of(adapted.config))["full"]
    wanted = states(adapted, plan), states(adapted, full)
    names = [name for name, _ in adapted.named_parameters() if ".lora_" not in name]
    merge(adapted)
    assert torch.allclose(states(adapted, plan), wanted[0], atol=2e-5)
    assert torch.allclose(states(adapted, full), wanted[1], atol=2e-5)
    assert [n for n, _ in adapted.named_parameters()] == [
        name.replace(".base_layer.", ".") for name in names
    ]
    assert all(weight.requires_grad for weight in adapted.parameters())


def test_a_saved_adapter_opens_in_peft(adapted: Any, tiny_hf_model: Any, tmp_path: Path) -> None:
    full = presets(shape_of(adapted.config))["full"]
    wanted = states(adapted, full)
    save(adapted, tmp_path, "the model")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(copy.deepcopy(tiny_hf_model), str(tmp_path))
    assert torch.allclose(states(theirs.base_model.model), wanted, atol=2e-5)


def test_dropout_is_of_the_factors_input(tiny_hf_model: Any) -> None:
    model = copy.deepcopy(tiny_hf_model)
    config = nest(model)
    attach(model, AdapterRecipe(dropout=0.5, targets=("gate_proj", "up_proj", "down_proj")))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.2)
    plan = presets(config)["e2b"]
    assert torch.equal(states(model, plan), states(model, plan))
    model.train()
    assert not torch.equal(states(model, plan), states(model, plan))


def test_what_does_not_fit_is_refused(
    adapted: Any, tiny_hf_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"adapter.targets is empty"):
        AdapterRecipe(targets=())
    with pytest.raises(ConfigError, match=r"adapter.rank is 0"):
        AdapterRecipe(rank=0)
    other = copy.deepcopy(tiny_hf_model)
    nest(other)
    with pytest.raises(CheckpointError, match="holds no adapter in peft's layout"):
        cut(tmp_path, plan_of(adapted), tmp_path / "x")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"adapters need peft; pip install 'matryo\[train\]'"):
        attach(other, AdapterRecipe())
