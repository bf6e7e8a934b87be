"""A Gemma 3n of transformers run at any plan, without copying a weight (MatFormer).

In: a `Gemma3nForCausalLM` or `Gemma3nForConditionalGeneration`. `nest` changes the classes of its
decoder's modules in place; weights and names stay as they were, the result at full width up to the
rounding of sums. A forward pass then takes `plan=`, and equals, in loss and gradients, the
checkpoint that the plan cuts out: the first rows of gate and up, the first columns of down, skipped
layers absent.
Out: hidden states; gradients reach exactly the weights that the plan reads, through views. Those of
shared keys and values flow from the readers into the layers that own them.
Source: arXiv 2310.07707; mean and deviation of the Gaussian top-k are taken over the plan's width.

B batch · T tokens · d model
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Gemma3nConfig,
    Gemma3nForCausalLM,
    Gemma3nForConditionalGeneration,
    Gemma3nTextConfig,
)

from matryo.config import TextConfig
from matryo.plan import Plan
from matryo.train.decoder import (
    NestedAttention,
    NestedLayer,
    NestedMLP,
    NestedTextModel,
    Shared,
)

LanguageModel = Gemma3nForCausalLM | Gemma3nForConditionalGeneration

# The JAX release starts from these; transformers leaves the scale at 0, which keeps the per-layer
# inputs out of the network until it has moved, and the coefficients at its general deviation.
SCALE, CORRECTION_STD, PREDICTION_STD = 1.0, 1e-2, 1e-4


def text_part(model: LanguageModel) -> Any:
    """The decoder inside a model, with or without towers: a `Gemma3nTextModel`.

    Any, because torch types every submodule as a tensor or a module.
    """
    return model.model if isinstance(model, Gemma3nForCausalLM) else model.model.language_model


def nest(model: LanguageModel) -> TextConfig:
    """Lets `model(..., plan=plan)` follow plans; returns its shape, which plans are checked with.

    Raises ConfigError if Matryo cannot run a model of this shape.
    """
    text_part(model).__class__ = NestedTextModel
    for layer in text_part(model).layers:
        layer.__class__, layer.mlp.__class__ = NestedLayer, NestedMLP
        layer.self_attn.__class__ = NestedAttention
    return shape_of(model.config)


def shape_of(config: Gemma3nTextConfig | Gemma3nConfig) -> TextConfig:
    """The decoder's shape in our words. Raises ConfigError."""
    text = config.get_text_config()
    return TextConfig.from_json({**text.to_dict(), "model_type": "gemma3n_text"})


def hidden_states(
    model: LanguageModel, plan: Plan | None, known: Shared | None = None, /, **inputs: Any
) -> torch.Tensor:
    """Final hidden states (B, T, d) after the last norm; inputs as the model's own forward takes
    them, logits excepted. known: what earlier passes over the same inputs have computed.
    """
    out = model.model(**inputs, use_cache=False, plan=plan, known=known)
    hidden: torch.Tensor = out.last_hidden_state
    return hidden


@torch.no_grad()
def initialise(model: LanguageModel) -> None:
    """Sets AltUp to the values that training from scratch starts from.

    Draws from torch's generator: seed it.
    """
    for layer in text_part(model).layers:
        layer.altup.correct_output_scale.fill_(SCALE)
        layer.altup.correction_coefs.weight.normal_(std=CORRECTION_STD)
        layer.altup.prediction_coefs.weight.normal_(std=PREDICTION_STD)
