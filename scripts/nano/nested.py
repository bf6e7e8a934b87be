"""Run a Hugging Face Gemma 3n text model at a nested plan (MatFormer) without copying weights.

In: a `Gemma3nForCausalLM`. `nest` changes the class of its layers and FFNs in place; `set_plan`
then chooses which layers run and how many FFN units each one uses. A plan equals the sliced
checkpoint: the first f rows of gate and up, the first f columns of down, skipped layers absent.
Source: arXiv 2310.07707 (MatFormer); the Gaussian top-k runs over the chosen width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import Gemma3nForCausalLM
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nTextDecoderLayer, Gemma3nTextMLP


@dataclass(frozen=True)
class Plan:
    """Layers that run, in order, and the FFN width of each of them."""

    layers: tuple[int, ...]
    ffn_width: tuple[int, ...]


class NestedMLP(Gemma3nTextMLP):
    """The FFN restricted to its first `width` units."""

    width: int

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map [batch, tokens, hidden] to the same shape."""
        gate = functional.linear(hidden_states, self.gate_proj.weight[: self.width])
        if self.activation_sparsity > 0.0:
            gate = self._gaussian_topk(gate)
        up = functional.linear(hidden_states, self.up_proj.weight[: self.width])
        return functional.linear(self.act_fn(gate) * up, self.down_proj.weight[:, : self.width])


class NestedLayer(Gemma3nTextDecoderLayer):
    """A decoder layer that can be left out."""

    skipped: bool

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Map the AltUp streams [4, batch, tokens, hidden] to the same shape."""
        if self.skipped:
            return hidden_states
        return super().forward(hidden_states, *args, **kwargs)


def nest(model: Gemma3nForCausalLM) -> None:
    """Let the model follow plans; it starts with all layers at full width."""
    layers = model.model.layers
    for layer in layers:
        layer.__class__, layer.mlp.__class__ = NestedLayer, NestedMLP
    widths = [layer.mlp.intermediate_size for layer in layers]
    set_plan(model, Plan(tuple(range(len(layers))), tuple(widths)))


def set_plan(model: Gemma3nForCausalLM, plan: Plan) -> None:
    """Choose the layers and widths of the following forward passes."""
    widths = dict(zip(plan.layers, plan.ffn_width, strict=True))
    for index, layer in enumerate(model.model.layers):
        layer.skipped = index not in widths
        layer.mlp.width = widths.get(index, 0)
