"""Tiny random Gemma 3n models of `transformers`, and the same models cut down to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

from helpers.random_weights import SHAPE, random_weight


def tiny_model(seed: int = 0, **changes: Any) -> Gemma3nForCausalLM:
    """A float32 text model of SHAPE with `changes`, random weights from `seed`, in eval mode."""
    rng = np.random.default_rng(seed)
    config = Gemma3nTextConfig(**{**SHAPE, **changes})
    config._attn_implementation = "eager"
    model = Gemma3nForCausalLM(config)  # in torch's default dtype, float32
    model.train(False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(random_weight(name, tuple(parameter.shape), rng)))
    return model


def sliced_model(
    model: Gemma3nForCausalLM, layers: Sequence[int], ffn_width: Sequence[int]
) -> Gemma3nForCausalLM:
    """The model of a plan as its own checkpoint: kept layers renumbered, FFN prefixes, the PLE
    slots of kept layers.
    """
    whole: Any = model.config
    skipped_readers = sum(
        n not in layers
        for n in range(
            whole.num_hidden_layers - whole.num_kv_shared_layers, whole.num_hidden_layers
        )
    )
    changes = {
        "num_hidden_layers": len(layers),
        "num_kv_shared_layers": whole.num_kv_shared_layers - skipped_readers,
        "intermediate_size": list(ffn_width),
        "layer_types": [whole.layer_types[n] for n in layers],
        "activation_sparsity_pattern": [whole.activation_sparsity_pattern[n] for n in layers],
    }
    small = tiny_model(**{key: value for key, value in {**_shape_of(whole), **changes}.items()})
    small.load_state_dict(sliced_state(model.state_dict(), layers, ffn_width, whole), strict=True)
    return small


def _shape_of(config: Gemma3nTextConfig) -> dict[str, Any]:
    return {key: getattr(config, key) for key in SHAPE}


def sliced_state(
    state: dict[str, torch.Tensor],
    layers: Sequence[int],
    ffn_width: Sequence[int],
    config: Gemma3nTextConfig,
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
