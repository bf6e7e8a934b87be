"""How much each FFN unit of a dense decoder matters, and the order that makes prefixes good.

In: a narrowable model and rows of calibration text. Out: a score a unit; the units of every FFN
sorted by it, in place: rows of gate and up, columns of down. The sum over units does not depend on
their order, so the full model computes what it did (up to the order of the sum).

Measures:
- `activation`: the root mean square of the unit's activation times the length of its down column:
  how large what it adds to the stream is.
- `taylor`: the root mean square of activation times gradient, the gradient being that of the log
  likelihood of a token drawn from the model's own distribution: the diagonal of the Fisher
  information, how much the model's answer changes if the unit goes (to second order).
- `weight`: the product of the lengths of its three vectors; needs no text.

N tokens · F units · V vocab
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch

from matryo.train.dense import ffns, head_of, hidden_states

Measure = Literal["taylor", "activation", "weight"]
MEASURES: tuple[str, ...] = get_args(Measure)


def unit_scores(
    model: Any,
    rows: torch.Tensor,
    measure: Measure,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> torch.Tensor:
    """Scores (L, F) in float64; rows (R, T) of token ids, one at a time through the model.

    progress: called with (rows done, rows in all)
    """
    down = torch.stack([ffn.down_proj.weight.detach().norm(dim=0).double() for ffn in ffns(model)])
    if measure == "weight":
        others = [
            ffn.gate_proj.weight.detach().norm(dim=1) * ffn.up_proj.weight.detach().norm(dim=1)
            for ffn in ffns(model)
        ]
        return down * torch.stack(others).double()
    sums = torch.zeros_like(down)
    generator = torch.Generator().manual_seed(seed)
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    model.requires_grad_(False)
    for number, ffn in enumerate(ffns(model)):
        ffn.watch = _watch(sums[number], with_gradient=measure == "taylor")
    try:
        for number, row in enumerate(rows):
            if measure == "taylor":
                _backward(model, row[None], generator)
            else:
                with torch.no_grad():
                    hidden_states(model, row[None])
            progress(number + 1, len(rows))
    finally:
        for ffn in ffns(model):
            ffn.watch = None
        for weight in trainable:
            weight.requires_grad_(True)
    scores = (sums / rows.numel()).sqrt()
    return scores if measure == "taylor" else scores * down


def _watch(total: torch.Tensor, *, with_gradient: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Adds the squares of a layer's activations, times their gradients', to `total` (F,)."""

    def plain(units: torch.Tensor) -> torch.Tensor:
        total.add_(units.flatten(0, -2).double().square().sum(0))
        return units

    def weighted(units: torch.Tensor) -> torch.Tensor:
        if not units.requires_grad:  # the first layer: nothing before it learns
            units = units.detach().requires_grad_(True)
        kept = units.detach()

        def add(gradient: torch.Tensor) -> None:
            total.add_((kept * gradient).flatten(0, -2).double().square().sum(0))

        units.register_hook(add)
        return units

    return weighted if with_gradient else plain


def _backward(model: Any, ids: torch.Tensor, generator: torch.Generator) -> None:
    """Gradients of the log likelihood, summed over positions, of tokens the model itself draws.

    Summed, not averaged: the gradient at a position is then its own, and that of later ones.
    """
    likelihood = torch.log_softmax(head_of(model, ids).logits()[0], -1)
    drawn = torch.multinomial(likelihood.detach().exp(), 1, generator=generator)
    likelihood.gather(1, drawn).sum().backward()


def order_of(scores: torch.Tensor) -> torch.Tensor:
    """Units (L, F), the most important first; equal ones in their old order."""
    return torch.argsort(scores, dim=1, descending=True, stable=True)


@torch.no_grad()
def reorder(model: Any, order: torch.Tensor) -> None:
    """Sorts the units of every FFN in place."""
    for ffn, units in zip(ffns(model), order, strict=True):
        for linear in (ffn.gate_proj, ffn.up_proj):
            linear.weight.copy_(linear.weight[units])
            if linear.bias is not None:
                linear.bias.copy_(linear.bias[units])
        ffn.down_proj.weight.copy_(ffn.down_proj.weight[:, units])
