"""A Gemma 3n of transformers run at any plan, without copying a weight (MatFormer).

In: a `Gemma3nForCausalLM` or `Gemma3nForConditionalGeneration`. `nest` changes the classes of its
decoder layers and FFNs in place; weights, names and the result at full width stay as they were. A
forward pass then takes `plan=`, and equals, in loss and gradients, the checkpoint that the plan
cuts out: the first rows of gate and up, the first columns of down, skipped layers absent.
Out: hidden states; gradients reach exactly the weights that the plan reads, through views. Those of
shared keys and values flow from the readers into the layers that own them.
Source: arXiv 2310.07707; mean and deviation of the Gaussian top-k are taken over the plan's width.

B batch · T tokens · d model · A streams
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import (
    Gemma3nConfig,
    Gemma3nForCausalLM,
    Gemma3nForConditionalGeneration,
    Gemma3nTextConfig,
)
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nTextDecoderLayer, Gemma3nTextMLP

from matryo.config import TextConfig
from matryo.plan import Plan

LanguageModel = Gemma3nForCausalLM | Gemma3nForConditionalGeneration

# The JAX release starts from these; transformers leaves the scale at 0, which keeps the per-layer
# inputs out of the network until it has moved, and the coefficients at its general deviation.
SCALE, CORRECTION_STD, PREDICTION_STD = 1.0, 1e-2, 1e-4


class NestedMLP(Gemma3nTextMLP):
    """The FFN restricted to its first `width` units."""

    width: int

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, d) to the same shape."""
        if self.width == self.intermediate_size:
            return super().forward(hidden_states)
        gate = functional.linear(hidden_states, self.gate_proj.weight[: self.width])
        if self.activation_sparsity > 0.0:
            gate = self._gaussian_topk(gate)
        up = functional.linear(hidden_states, self.up_proj.weight[: self.width])
        return functional.linear(self.act_fn(gate) * up, self.down_proj.weight[:, : self.width])


class NestedLayer(Gemma3nTextDecoderLayer):  # type: ignore[no-untyped-call]
    """A decoder layer at the width of a plan, or left out by it."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Streams (A, B, T, d) to the same shape; `plan` among the arguments, absent = all of it.

        The plan is an argument, not a state: with gradient checkpointing this runs again during
        the backward pass, perhaps after a pass at another plan.
        """
        plan: Plan | None = kwargs.pop("plan", None)
        mlp: Any = self.mlp
        width: int = mlp.intermediate_size
        if plan is not None:
            if self.layer_idx not in plan.layers:
                return hidden_states
            width = plan.ffn_width[plan.layers.index(self.layer_idx)]
        mlp.width = width
        return super().forward(hidden_states, *args, **kwargs)


def text_part(model: LanguageModel) -> Any:
    """The decoder inside a model, with or without towers: a `Gemma3nTextModel`.

    Any, because torch types every submodule as a tensor or a module.
    """
    return model.model if isinstance(model, Gemma3nForCausalLM) else model.model.language_model


def nest(model: LanguageModel) -> TextConfig:
    """Lets `model(..., plan=plan)` follow plans; returns its shape, which plans are checked with.

    Raises ConfigError if Matryo cannot run a model of this shape.
    """
    for layer in text_part(model).layers:
        layer.__class__, layer.mlp.__class__ = NestedLayer, NestedMLP
    return shape_of(model.config)


def shape_of(config: Gemma3nTextConfig | Gemma3nConfig) -> TextConfig:
    """The decoder's shape in our words. Raises ConfigError."""
    text = config.get_text_config()
    return TextConfig.from_json({**text.to_dict(), "model_type": "gemma3n_text"})


def hidden_states(model: LanguageModel, plan: Plan | None, **inputs: Any) -> torch.Tensor:
    """Final hidden states (B, T, d) after the last norm; inputs as the model's own forward takes
    them, logits excepted.
    """
    out = model.model(**inputs, use_cache=False, plan=plan)
    hidden: torch.Tensor = out.last_hidden_state
    return hidden


def softcap(model: LanguageModel) -> float:
    """The cap of the logits, 0 = none."""
    return float(model.config.get_text_config().final_logit_softcapping or 0.0)


@torch.no_grad()
def initialise(model: LanguageModel) -> None:
    """Sets AltUp to the values that training from scratch starts from.

    Draws from torch's generator: seed it.
    """
    for layer in text_part(model).layers:
        layer.altup.correct_output_scale.fill_(SCALE)
        layer.altup.correction_coefs.weight.normal_(std=CORRECTION_STD)
        layer.altup.prediction_coefs.weight.normal_(std=PREDICTION_STD)
