"""The shape of matryo-nano as a config.json, and its plans.

In: nothing. Out: JSON for `model.config` and `model.plans` of a recipe. The picture encoder takes
64 x 64 pixels and gives 4 x 4 embeddings, the sound encoder one each 160 ms, 50 at most.
"""

from __future__ import annotations

import json
from typing import Any

TEXT_IDS, RANGE = 8192, 16  # of the tokenizer; ids of pictures, and of sound
CLIP_TOKENS = 50  # 8 s
LAYERS = 8
WIDTHS = {"tiny": 128, "small": 256, "medium": 384, "large": 512}


def _edge(channels: int, stride: int, ratio: float) -> dict[str, Any]:
    return {
        "block_type": "er", "out_chs": channels, "stride": stride, "exp_kernel_size": 3,
        "pw_kernel_size": 1, "exp_ratio": ratio, "force_in_chs": 0, "se_ratio": 0.0,
        "act_layer": None, "noskip": False,
    }  # fmt: skip


def _inverted(
    channels: int, stride: int, ratio: float, start: int = 0, middle: int = 0
) -> dict[str, Any]:
    return {
        "block_type": "uir", "out_chs": channels, "stride": stride,
        "dw_kernel_size_start": start, "dw_kernel_size_mid": middle, "dw_kernel_size_end": 0,
        "exp_ratio": ratio, "se_ratio": 0.0, "act_layer": None, "noskip": False,
    }  # fmt: skip


def _attention(channels: int, heads: int) -> dict[str, Any]:
    return {
        "block_type": "mqa", "out_chs": channels, "stride": 1, "dw_kernel_size": 3,
        "num_heads": heads, "key_dim": 24, "value_dim": 24, "kv_stride": 1,
        "act_layer": None, "noskip": False,
    }  # fmt: skip


BLOCKS = [  # sides 16, 8, 4, 2; the two last are fused on the grid of 4 x 4
    [_edge(24, 2, 4.0), _edge(24, 1, 4.0)],
    [_inverted(48, 2, 6.0, 3, 5), _inverted(48, 1, 4.0, 5), _inverted(48, 1, 4.0, 3)],
    [
        _inverted(80, 2, 6.0, 5, 5), _inverted(80, 1, 4.0, 3), _inverted(80, 1, 4.0, 3),
        _attention(80, 4), _inverted(80, 1, 2.0),
    ],
    [_inverted(96, 2, 6.0, 3, 3), _attention(96, 4), _inverted(96, 1, 2.0)],
]  # fmt: skip


def config() -> dict[str, Any]:
    """config.json."""
    return {
        "model_type": "gemma3n",
        "text_config": {
            "vocab_size": TEXT_IDS + 2 * RANGE,
            "vocab_size_per_layer_input": TEXT_IDS,
            "hidden_size": 256,
            "hidden_size_per_layer_input": 32,
            "intermediate_size": [WIDTHS["large"]] * LAYERS,
            "num_hidden_layers": LAYERS,
            "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2),
            "num_kv_shared_layers": LAYERS // 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 64,
            "sliding_window": 128,
            "max_position_embeddings": 1024,
            "activation_sparsity_pattern": [0.95, 0.95] + [0.0] * (LAYERS - 2),
            "altup_num_inputs": 4,
            "laurel_rank": 16,
            "final_logit_softcapping": 30.0,
            "pad_token_id": 0,
            "eos_token_id": [1, 106],
            "bos_token_id": 2,
        },
        "vision_config": {
            "model_type": "gemma3n_vision",
            "architecture": "mobilenetv5_300m_enc",
            "hidden_size": 2048,  # timm's encoder knows no other
            "vocab_size": RANGE,
            "vocab_offset": TEXT_IDS,
            "model_args": {
                "block_args": BLOCKS,
                "stem_size": 16,
                "msfa_output_resolution": 4,
            },
        },
        "audio_config": {
            "model_type": "gemma3n_audio",
            "hidden_size": 128,
            "vocab_size": RANGE,
            "vocab_offset": TEXT_IDS + RANGE,
            "conf_num_attention_heads": 4,
            "conf_num_hidden_layers": 6,
            "sscp_conv_channel_size": [64, 16],
            "input_feat_size": 128,
        },
        "boi_token_id": 107,
        "boa_token_id": 108,
        "eoi_token_id": TEXT_IDS,
        "image_token_id": TEXT_IDS + 1,
        "eoa_token_id": TEXT_IDS + RANGE,
        "audio_token_id": TEXT_IDS + RANGE + 1,
        "vision_soft_tokens_per_image": 16,
        "audio_soft_tokens_per_image": CLIP_TOKENS,
        "eos_token_id": [1, 106],
        "bos_token_id": 2,
        "pad_token_id": 0,
    }


def plans() -> dict[str, Any]:
    """The sizes: the smallest also leaves out a block that shares other layers' keys and values."""
    without = [layer for layer in range(LAYERS) if layer not in (4, 5)]
    named: dict[str, Any] = {name: {"ffn_width": width} for name, width in WIDTHS.items()}
    named["tiny"]["layers"] = without
    return named


if __name__ == "__main__":
    print(json.dumps({"config": config(), "plans": plans()}, indent=1))
