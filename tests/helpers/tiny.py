"""Tiny random Gemma 3n models of `transformers`, scaled so that every non-linearity matters.

At default initialisation logits stay below 1 and a soft cap of 30, a cut gate or a tanh changes nothing measurable; here
norms are around 1, router inputs around 1, logits around 8, and about one gate in twenty survives in sparse layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

TEXT_VOCAB, MEDIA_IDS = 512, 16
SHAPE: dict[str, Any] = {
    "vocab_size": TEXT_VOCAB + 2 * MEDIA_IDS,
    "vocab_size_per_layer_input": TEXT_VOCAB,
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 15,
    "num_kv_shared_layers": 10,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "sliding_window": 8,
    "hidden_size_per_layer_input": 24,
    "laurel_rank": 8,
    "max_position_embeddings": 256,
    "activation_sparsity_pattern": [0.95] * 3 + [0.0] * 12,
}


def tiny_model(seed: int = 0, **changes: Any) -> Gemma3nForCausalLM:
    """A float32 text model of SHAPE with `changes`, random weights from `seed`, in eval mode."""
    torch.manual_seed(seed)
    config = Gemma3nTextConfig(**{**SHAPE, **changes})
    config._attn_implementation = "eager"
    model = Gemma3nForCausalLM(config).eval().to(torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _fill(name, parameter)
    return model


def _fill(name: str, weight: torch.Tensor) -> None:
    """Random values of a size that suits the place."""
    if name.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")):
        weight.normal_(0.3, 0.1)
    elif name.endswith(("post_laurel_norm.weight", "post_per_layer_input_norm.weight")):
        weight.normal_(0.3, 0.1)
    elif name.endswith("norm.weight"):
        weight.normal_(1.0, 0.2)
    elif name.endswith("correct_output_scale"):
        weight.normal_(1.0, 0.3)
    elif name.endswith("modality_router.weight"):
        weight.normal_(0.0, weight.shape[1] ** 0.5)  # its input is normed and divided by d
    elif name.endswith(("prediction_coefs.weight", "correction_coefs.weight")):
        weight.normal_(0.0, 0.1)
    elif name.endswith("embed_tokens.weight"):
        weight.normal_(0.0, 8.0 / weight.shape[1] ** 0.5)
    elif name.endswith("embed_tokens_per_layer.weight"):
        weight.normal_(0.0, 0.25)
    elif name.endswith(("q_proj.weight", "k_proj.weight")):
        weight.normal_(0.0, weight.shape[1] ** -0.5)
    else:
        weight.normal_(0.0, weight.shape[1] ** -0.5)


def sliced_model(
    model: Gemma3nForCausalLM, layers: Sequence[int], ffn_width: Sequence[int]
) -> Gemma3nForCausalLM:
    """The model of a plan as its own checkpoint: kept layers renumbered, FFN prefixes, the PLE slots of kept layers."""
    whole = model.config
    skipped_readers = sum(
        n not in layers for n in range(whole.num_hidden_layers - whole.num_kv_shared_layers, whole.num_hidden_layers)
    )
    changes = {
        "num_hidden_layers": len(layers),
        "num_kv_shared_layers": whole.num_kv_shared_layers - skipped_readers,
        "intermediate_size": list(ffn_width),
        "layer_types": [whole.layer_types[n] for n in layers],
        "activation_sparsity_pattern": [whole.activation_sparsity_pattern[n] for n in layers],
    }
    small = tiny_model(**{key: value for key, value in {**_shape_of(whole), **changes}.items()})
    small.load_state_dict(_sliced_state(model.state_dict(), layers, ffn_width, whole), strict=True)
    return small


def _shape_of(config: Gemma3nTextConfig) -> dict[str, Any]:
    return {key: getattr(config, key) for key in SHAPE}


def _sliced_state(
    state: dict[str, torch.Tensor], layers: Sequence[int], ffn_width: Sequence[int], config: Gemma3nTextConfig
) -> dict[str, torch.Tensor]:
    ple_dim, out = config.hidden_size_per_layer_input, {}
    slots = torch.cat([torch.arange(n * ple_dim, (n + 1) * ple_dim) for n in layers])
    for name, value in state.items():
        if name.startswith("model.layers."):
            number, rest = name.removeprefix("model.layers.").split(".", 1)
            if int(number) not in layers:
                continue
            place = list(layers).index(int(number))
            if rest in ("mlp.gate_proj.weight", "mlp.up_proj.weight"):
                value = value[: ffn_width[place]]
            elif rest == "mlp.down_proj.weight":
                value = value[:, : ffn_width[place]]
            out[f"model.layers.{place}.{rest}"] = value
        elif name == "model.embed_tokens_per_layer.weight":
            out[name] = value[:, slots]
        elif name == "model.per_layer_model_projection.weight":
            out[name] = value[slots]
        else:
            out[name] = value
    return out
