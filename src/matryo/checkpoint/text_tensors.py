"""Names and shapes of the language model's tensors in a Hugging Face checkpoint.

In: the config. Out: canonical names (below the language model, such as
`layers.0.mlp.up_proj.weight`) with their shapes. The keys of the tables are the field names of
`matryo.kernels.layer`. Source: transformers `modeling_gemma3n.py`.
"""

from __future__ import annotations

from matryo.config import NUM_STREAMS, TextConfig
from matryo.kernels.layer import OWNER_ONLY

LAYER_VECTORS = {
    "router_norm": "altup.router_norm.weight",
    "router": "altup.modality_router.weight",
    "prediction_coefs": "altup.prediction_coefs.weight",
    "correction_coefs": "altup.correction_coefs.weight",
    "correct_output_scale": "altup.correct_output_scale",
    "input_norm": "input_layernorm.weight",
    "post_attention_norm": "post_attention_layernorm.weight",
    "pre_ffn_norm": "pre_feedforward_layernorm.weight",
    "post_ffn_norm": "post_feedforward_layernorm.weight",
    "post_ple_norm": "post_per_layer_input_norm.weight",
    "post_laurel_norm": "laurel.post_laurel_norm.weight",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
}
LAYER_MATRICES = {
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "laurel_left": "laurel.linear_left.weight",
    "laurel_right": "laurel.linear_right.weight",
    "ple_gate": "per_layer_input_gate.weight",
    "ple_projection": "per_layer_projection.weight",
}
FFN_MATRICES = {
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}


def text_shapes(config: TextConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every text tensor that is used."""
    width, ple, layers = config.hidden_size, config.ple_dim, config.num_layers
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (config.vocab_size, width),
        "embed_tokens_per_layer.weight": (config.ple_vocab_size, layers * ple),
        "per_layer_model_projection.weight": (layers * ple, width),
        "per_layer_projection_norm.weight": (ple,),
        "norm.weight": (width,),
    }
    for i in range(NUM_STREAMS - 1):
        shapes[f"altup_projections.{i}.weight"] = (width, width)
        shapes[f"altup_unembed_projections.{i}.weight"] = (width, width)
    for layer in range(layers):
        shapes |= _layer_shapes(config, layer)
    return shapes


def _layer_shapes(config: TextConfig, layer: int) -> dict[str, tuple[int, ...]]:
    width, ple, rank = config.hidden_size, config.ple_dim, config.laurel_rank
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    units = config.ffn_width[layer]
    vectors: dict[str, tuple[int, ...]] = dict.fromkeys(LAYER_VECTORS, (width,))
    vectors |= {
        "router": (NUM_STREAMS, width),
        "prediction_coefs": (NUM_STREAMS**2, NUM_STREAMS),
        "correction_coefs": (NUM_STREAMS, NUM_STREAMS),
        "q_norm": (config.head_dim,),
        "k_norm": (config.head_dim,),
    }
    matrices = {
        "q": (queries, width), "k": (keys, width), "v": (keys, width), "o": (width, queries),
        "laurel_left": (rank, width), "laurel_right": (width, rank), "ple_gate": (ple, width),
        "ple_projection": (width, ple),
        "gate": (units, width), "up": (units, width), "down": (width, units),
    }  # fmt: skip
    names = LAYER_VECTORS | LAYER_MATRICES | FFN_MATRICES
    return {
        f"layers.{layer}.{names[key]}": shape
        for key, shape in (vectors | matrices).items()
        if layer < config.num_owners or key not in OWNER_ONLY
    }


def dead_names(config: TextConfig) -> set[str]:
    """K/V tensors of layers that read another layer's K/V: shipped, never used."""
    dead = [name for key, name in (LAYER_VECTORS | LAYER_MATRICES).items() if key in OWNER_ONLY]
    return {
        f"layers.{n}.{name}" for n in range(config.num_owners, config.num_layers) for name in dead
    }
