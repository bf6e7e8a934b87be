"""Random weights of a tiny Gemma 3n under their Hugging Face names, scaled so that every
non-linearity matters.

At default initialisation logits stay below 1 and a soft cap of 30, a cut gate or a tanh changes
nothing measurable; here norms are around 1, router inputs around 1, logits around 8, attention
entropy around 1 nat, and about one gate in twenty survives in sparse layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.config import TextConfig

F32 = npt.NDArray[np.float32]

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
# A smaller one for tests that run many passes and need no oracle: 9 layers, producers 1 and 2.
SMALL: dict[str, Any] = {
    **SHAPE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 9,
    "num_kv_shared_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "hidden_size_per_layer_input": 32,  # one quantisation group a slot, as in every real checkpoint
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 3,
    "activation_sparsity_pattern": [0.95] * 2 + [0.0] * 7,
}

# Ends of tensor names -> mean and deviation; the first that fits.
_SCALES: tuple[tuple[tuple[str, ...], float, float], ...] = (
    (("post_attention_layernorm.weight", "post_feedforward_layernorm.weight"), 0.3, 0.1),
    (("post_laurel_norm.weight", "post_per_layer_input_norm.weight"), 0.3, 0.1),
    (("q_norm.weight", "k_norm.weight"), 0.7, 0.15),
    (("norm.weight",), 1.0, 0.2),
    (("correct_output_scale",), 1.0, 0.3),
    # At 0.1 float32 itself is off by 1e-3 for some prompts.
    (("prediction_coefs.weight",), 0.0, 0.06),
    (("correction_coefs.weight",), 0.0, 0.1),
    (("embed_tokens_per_layer.weight",), 0.0, 0.25),
)


def random_weight(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Random values of a size that suits the place."""
    mean, deviation = _scale(name, shape)
    return (mean + deviation * rng.standard_normal(shape)).astype(np.float32)


def _scale(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    for ends, mean, deviation in _SCALES:
        if name.endswith(ends):
            return mean, deviation
    if name.endswith("modality_router.weight"):
        return 0.0, shape[-1] ** 0.5  # its input is normed and divided by d
    if name.endswith("embed_tokens.weight"):
        return 0.0, 8.0 / shape[-1] ** 0.5
    return 0.0, shape[-1] ** -0.5


def random_state(config: TextConfig, seed: int = 0) -> dict[str, F32]:
    """Every tensor of a text-only checkpoint."""
    rng = np.random.default_rng(seed)
    return {name: random_weight(name, shape, rng) for name, shape in _shapes(config).items()}


def config_of(shape: Mapping[str, Any]) -> TextConfig:
    return TextConfig.from_json({"model_type": "gemma3n_text", **shape})


def _shapes(config: TextConfig) -> dict[str, tuple[int, ...]]:
    d, ples = config.hidden_size, config.num_layers * config.ple_dim
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (config.vocab_size, d),
        "embed_tokens_per_layer.weight": (config.ple_vocab_size, ples),
        "per_layer_model_projection.weight": (ples, d),
        "per_layer_projection_norm.weight": (config.ple_dim,),
        "norm.weight": (d,),
    }
    for stream in range(3):
        shapes[f"altup_projections.{stream}.weight"] = (d, d)
        shapes[f"altup_unembed_projections.{stream}.weight"] = (d, d)
    for layer in range(config.num_layers):
        for name, shape in _layer_shapes(config, layer).items():
            shapes[f"layers.{layer}.{name}"] = shape
    return shapes


def _layer_shapes(config: TextConfig, layer: int) -> dict[str, tuple[int, ...]]:
    d, p, r, head = config.hidden_size, config.ple_dim, config.laurel_rank, config.head_dim
    queries, keys, width = (
        config.num_heads * head,
        config.num_kv_heads * head,
        config.ffn_width[layer],
    )
    norms = (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
        "post_per_layer_input_norm",
        "laurel.post_laurel_norm",
        "altup.router_norm",
    )
    return {
        **{f"{name}.weight": (d,) for name in norms},
        "altup.correct_output_scale": (d,),
        "altup.correction_coefs.weight": (4, 4),
        "altup.prediction_coefs.weight": (16, 4),
        "altup.modality_router.weight": (4, d),
        "laurel.linear_left.weight": (r, d),
        "laurel.linear_right.weight": (d, r),
        "self_attn.q_proj.weight": (queries, d),
        "self_attn.k_proj.weight": (keys, d),
        "self_attn.v_proj.weight": (keys, d),
        "self_attn.o_proj.weight": (d, queries),
        "self_attn.q_norm.weight": (head,),
        "self_attn.k_norm.weight": (head,),
        "mlp.gate_proj.weight": (width, d),
        "mlp.up_proj.weight": (width, d),
        "mlp.down_proj.weight": (d, width),
        "per_layer_input_gate.weight": (p, d),
        "per_layer_projection.weight": (d, p),
    }
