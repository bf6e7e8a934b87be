"""Units are sorted by what they do; sorting changes nothing but what a prefix is."""

from __future__ import annotations

import pytest
import torch

from helpers.dense import FAMILIES, dense_model
from matryo.train.dense import ffns, hidden_states, make_narrowable
from matryo.train.importance import MEASURES, order_of, reorder, unit_scores

ROWS = torch.randint(1, 4096, (3, 24), generator=torch.Generator().manual_seed(5))


def model_of(family: str) -> object:
    model = dense_model(family)
    make_narrowable(model)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_full_model_computes_what_it_did(family: str) -> None:
    model, plain = dense_model(family), dense_model(family)
    make_narrowable(model)
    order = order_of(unit_scores(model, ROWS, "activation"))
    assert not torch.equal(order, torch.arange(128).expand(3, 128))
    reorder(model, order)
    with torch.no_grad():
        assert torch.allclose(model(ROWS).logits, plain(ROWS).logits, atol=2e-5)
    assert all(weight.requires_grad for weight in model.parameters())


def test_activation_scores_are_a_plain_computation() -> None:
    model = dense_model("llama")
    make_narrowable(model)
    seen: list[torch.Tensor] = []
    handle = ffns(model)[1].down_proj.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    ffn = ffns(model)[1]
    caught: list[torch.Tensor] = []
    post = model.model.layers[1].post_attention_layernorm
    hook = post.register_forward_hook(lambda m, i, out: caught.append(out))
    with torch.no_grad():
        for row in ROWS:
            hidden_states(model, row[None])
        x = torch.cat(caught).double()
        gate = x @ ffn.gate_proj.weight.double().T + ffn.gate_proj.bias.double()
        up = x @ ffn.up_proj.weight.double().T + ffn.up_proj.bias.double()
        units = torch.nn.functional.silu(gate) * up
        wanted = units.square().mean((0, 1)).sqrt() * ffn.down_proj.weight.double().norm(dim=0)
    hook.remove(), handle.remove()
    assert torch.allclose(unit_scores(model, ROWS, "activation")[1], wanted, rtol=1e-4)


def test_taylor_scores_say_how_much_the_answer_changes() -> None:
    """Against finite differences of the answer's distribution: KL when a unit is left out."""
    model = dense_model("qwen3")
    make_narrowable(model)
    # Small units, for which the second order is all there is.
    with torch.no_grad():
        for ffn in ffns(model):
            ffn.down_proj.weight.mul_(0.05)
    rows = torch.randint(1, 4096, (24, 12), generator=torch.Generator().manual_seed(7))
    scores = unit_scores(model, rows, "taylor")[1]
    down = ffns(model)[1].down_proj.weight
    with torch.no_grad():
        before = torch.log_softmax(model(rows).logits.double(), -1)
        changes = []
        for unit in range(0, 128, 8):
            kept = down[:, unit].clone()
            down[:, unit] = 0
            after = torch.log_softmax(model(rows).logits.double(), -1)
            changes.append(float((before.exp() * (before - after)).sum(-1).mean()))
            down[:, unit] = kept
    pairs = torch.stack([torch.tensor(changes).log(), scores[::8].square().log()])
    assert float(torch.corrcoef(pairs)[0, 1]) > 0.9


def test_a_unit_that_does_nothing_comes_last() -> None:
    for measure in MEASURES:
        model = dense_model("gemma3_text")
        make_narrowable(model)
        with torch.no_grad():
            ffns(model)[2].down_proj.weight[:, 5] = 0
        order = order_of(unit_scores(model, ROWS, measure))  # type: ignore[arg-type]
        assert order[2, -1] == 5, measure
