"""A nested model is transformers' own at full width, and the model of a plan at that plan: the same
loss, the same gradients, no copies.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from helpers.tiny import sliced_model, sliced_state
from matryo.config import TextConfig
from matryo.plan import Plan, full_plan, presets
from matryo.train import decoder
from matryo.train.head import softcap_of
from matryo.train.nested import (
    CORRECTION_STD,
    PREDICTION_STD,
    hidden_states,
    initialise,
    nest,
    shape_of,
    text_part,
)

PLANS = ["full", "e2b", "skip", "mixed", "owners"]
TOLERANCE = 3e-5  # of the largest gradient of a tensor; two orders of summation differ by 1e-6


def plan_of(name: str, config: TextConfig) -> Plan:
    """Everything, the released cut, readers skipped, mixed widths, owners skipped."""
    kept = (*range(5), *range(10, 15))
    owners = (1, 3, 4, 5, 7, 9, 11, 14)
    return {
        "full": full_plan(config),
        "e2b": presets(config)["e2b"],
        "skip": Plan(kept, (192,) * 10, 5),
        "mixed": Plan(tuple(range(15)), tuple(64 * (1 + layer % 3) for layer in range(15)), 5),
        "owners": Plan(owners, (192, 96, 32, 160, 192, 64, 128, 192), 5),
    }[name]


def token_rows(seed: int = 3) -> torch.Tensor:
    """(2, 17) ids of every kind: the pad token, text, ids beyond the PLE table."""
    rows = torch.randint(0, 544, (2, 17), generator=torch.Generator().manual_seed(seed))
    rows[0, 3] = rows[1, 9] = 0
    return rows


def loss_of(model: Any, rows: torch.Tensor, plan: Plan | None = None) -> torch.Tensor:
    """Cross-entropy as transformers computes it, over nested hidden states if a plan is given."""
    if plan is None:
        loss: torch.Tensor = model(input_ids=rows, labels=rows, use_cache=False).loss
        return loss
    cap = softcap_of(model)
    logits = cap * torch.tanh(model.lm_head(hidden_states(model, plan, input_ids=rows)) / cap)
    return model.loss_function(logits, rows, logits.shape[-1])  # type: ignore[no-any-return]


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradient of every tensor, zeros where none arrived."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {
        name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
        for name, value in model.named_parameters()
    }


def assert_same(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], unused: bool = False
) -> None:
    """unused: some weights may have no gradient, but then in both."""
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        scale = float(wanted.abs().max())
        assert scale > 0 or unused, f"{name} gets no gradient at all"
        assert float((ours[name] - wanted).abs().max()) <= TOLERANCE * scale, name


def test_full_width_is_transformers_in_loss_and_gradients(
    tiny_hf_model: Any, nested_model: Any
) -> None:
    theirs, rows = copy.deepcopy(tiny_hf_model), token_rows()
    for training in (False, True):
        theirs.train(training), nested_model.train(training)
        wanted, got = loss_of(theirs, rows), loss_of(nested_model, rows)
        assert abs(got.item() - wanted.item()) < 1e-5
        assert_same(gradients(nested_model, got), gradients(theirs, wanted), unused=True)
    nested_model.train(False)


def test_without_the_native_operations_it_is_transformers_bit_for_bit(
    tiny_hf_model: Any, nested_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "_fuses", lambda tensor: False)
    theirs, rows = copy.deepcopy(tiny_hf_model), token_rows()
    wanted, got = loss_of(theirs, rows), loss_of(nested_model, rows)
    assert torch.equal(got, wanted)
    expected = gradients(theirs, wanted)
    for name, value in gradients(nested_model, got).items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("name", "checkpointing"), [*((name, False) for name in PLANS), ("mixed", True), ("e2b", True)]
)
def test_a_plan_is_its_cut_out_model_in_loss_and_gradients(
    tiny_hf_model: Any, nested_model: Any, name: str, checkpointing: bool
) -> None:
    plan, rows = plan_of(name, shape_of(nested_model.config)), token_rows()
    small = sliced_model(tiny_hf_model, plan.layers, plan.ffn_width)
    small.train(), nested_model.train()
    if checkpointing:
        nested_model.activation_checkpointing_enable({"use_reentrant": False})
    try:
        loss = loss_of(nested_model, rows, plan)
        # Another pass before the backward one must not change what is recomputed.
        hidden_states(nested_model, full_plan(shape_of(nested_model.config)), input_ids=rows)
        ours = gradients(nested_model, loss)
    finally:
        nested_model.activation_checkpointing_disable()
        nested_model.train(False)
    wanted = loss_of(small, rows)
    assert abs(loss.item() - wanted.item()) < 1e-5
    inside = sliced_state(ours, plan.layers, plan.ffn_width, nested_model.config)
    assert_same(inside, gradients(small, wanted))
    # Nothing outside the plan has a gradient.
    assert sum(float(value.abs().sum()) for value in ours.values()) == pytest.approx(
        sum(float(value.abs().sum()) for value in inside.values()), rel=1e-5
    )


def test_no_weight_is_copied(nested_model: Any) -> None:
    plan = plan_of("mixed", shape_of(nested_model.config))
    saved: list[int] = []
    known = {value.untyped_storage().data_ptr() for value in nested_model.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() in known:
            saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden_states(nested_model, plan, input_ids=token_rows())
    layer = text_part(nested_model).layers[0]
    assert saved.count(layer.mlp.gate_proj.weight[:64].numel()) > 0


def test_readers_send_gradients_to_the_owners_of_their_keys(nested_model: Any) -> None:
    """Without them the producers' gradients would be others: cut them and see."""
    rows, plan = token_rows(), full_plan(shape_of(nested_model.config))
    whole = gradients(nested_model, loss_of(nested_model, rows, plan))
    producer = text_part(nested_model).layers[4].self_attn
    assert producer.store_full_length_kv

    def cut(module: Any, inputs: Any, kwargs: Any) -> Any:
        shared = kwargs["shared_kv_states"]
        for kind, (keys, values) in list(shared.items()):
            shared[kind] = keys.detach(), values.detach()

    handles = [
        layer.self_attn.register_forward_pre_hook(cut, with_kwargs=True)
        for layer in text_part(nested_model).layers[5:]
    ]
    without = gradients(nested_model, loss_of(nested_model, rows, plan))
    for handle in handles:
        handle.remove()
    name = "model.layers.4.self_attn.k_proj.weight"
    assert float((whole[name] - without[name]).abs().max()) > 0.1 * float(whole[name].abs().max())


def test_row_0_of_the_per_layer_table_stays_where_it_is(nested_model: Any) -> None:
    found = gradients(nested_model, loss_of(nested_model, token_rows()))
    table = found["model.embed_tokens_per_layer.weight"]
    assert not table[0].any() and table[1:].any()
    assert found["model.embed_tokens.weight"][0].any()  # through the tied head


def test_coefficients_are_clipped_while_training_only(tiny_hf_model: Any) -> None:
    model = copy.deepcopy(tiny_hf_model)
    nest(model)
    altup = text_part(model).layers[0].altup
    with torch.no_grad():
        altup.prediction_coefs.weight[0, 0] = 500.0
        altup.correction_coefs.weight[0, 0] = 500.0
    plan = plan_of("mixed", shape_of(model.config))
    hidden_states(model, plan, input_ids=token_rows())
    assert altup.prediction_coefs.weight[0, 0] == 500.0
    model.train()
    loss_of(model, token_rows(), plan).backward()
    assert altup.prediction_coefs.weight[0, 0] == 120.0  # in place
    assert altup.correction_coefs.weight[0, 0] == 500.0  # through the graph, where it is flat
    assert altup.correction_coefs.weight.grad[0, 0] == 0.0
    assert altup.correction_coefs.weight.grad[1, 1] != 0.0


def test_initial_values_let_the_per_layer_inputs_act(tiny_hf_model: Any) -> None:
    model = copy.deepcopy(tiny_hf_model)
    torch.manual_seed(1)
    initialise(model)
    layers = text_part(model).layers
    for layer in layers:
        assert bool((layer.altup.correct_output_scale == 1).all())
    for part, deviation in (("correction", CORRECTION_STD), ("prediction", PREDICTION_STD)):
        values = [getattr(layer.altup, f"{part}_coefs").weight.flatten() for layer in layers]
        assert torch.cat(values).std().item() == pytest.approx(deviation, rel=0.2)


def test_a_model_with_towers_follows_plans(tiny_multimodal_model: Any) -> None:
    model = copy.deepcopy(tiny_multimodal_model)
    rows = torch.randint(1, 500, (1, 9), generator=torch.Generator().manual_seed(2))
    config = nest(model)
    with torch.no_grad():
        wanted = tiny_multimodal_model.model(input_ids=rows, use_cache=False).last_hidden_state
        found = hidden_states(model, None, input_ids=rows)
        assert torch.allclose(found, wanted, atol=TOLERANCE * float(wanted.abs().max()))
        plan = presets(config)["e2b"]
        assert not torch.allclose(hidden_states(model, plan, input_ids=rows), wanted, atol=1e-2)
