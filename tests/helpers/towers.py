"""Configs of tiny multimodal checkpoints, as plain JSON."""

from __future__ import annotations

import copy
from typing import Any

from helpers.random_weights import MEDIA_IDS, SHAPE, TEXT_VOCAB


def block(kind: str, channels: int, stride: int = 1, **args: Any) -> dict[str, Any]:
    """One block of the picture encoder, as timm's `decode_arch_def` gives it."""
    return {"block_type": kind, "out_chs": channels, "stride": stride, "act_layer": None, **args}


def _er(channels: int, stride: int = 1) -> dict[str, Any]:
    return block(
        "er", channels, stride, exp_kernel_size=3, pw_kernel_size=1, exp_ratio=2.0,
        force_in_chs=0, se_ratio=0.0, noskip=False,
    )  # fmt: skip


def _uir(channels: int, start: int, mid: int, ratio: float, stride: int = 1) -> dict[str, Any]:
    return block(
        "uir", channels, stride, dw_kernel_size_start=start, dw_kernel_size_mid=mid,
        dw_kernel_size_end=0, exp_ratio=ratio, se_ratio=0.0, noskip=False,
    )  # fmt: skip


def _mqa(channels: int, heads: int, kv_stride: int) -> dict[str, Any]:
    return block(
        "mqa", channels, dw_kernel_size=3, num_heads=heads, key_dim=8, value_dim=8,
        kv_stride=kv_stride, noskip=False,
    )  # fmt: skip


BLOCK_ARGS = [
    [_er(16, 2), _er(16), _er(16)],
    [_uir(24, 3, 5, 3.0, 2), _uir(24, 5, 0, 2.0)],
    [_uir(32, 5, 5, 3.0, 2), _uir(32, 0, 0, 1.0), _mqa(32, 3, 2), _uir(32, 0, 0, 2.0)],
    [_uir(40, 5, 5, 2.0, 2), _mqa(40, 2, 1), _uir(40, 0, 0, 2.0)],
]
VISION: dict[str, Any] = {
    "model_type": "gemma3n_vision",
    "architecture": "mobilenetv5_300m_enc",
    "hidden_size": 2048,  # timm's encoder knows no other
    "vocab_size": MEDIA_IDS,
    "vocab_offset": TEXT_VOCAB,
    "rms_norm_eps": 1e-6,
    "model_args": {"block_args": BLOCK_ARGS, "stem_size": 8, "msfa_output_resolution": 4},
}
AUDIO: dict[str, Any] = {
    "model_type": "gemma3n_audio",
    "hidden_size": 64,
    "vocab_size": MEDIA_IDS,
    "vocab_offset": TEXT_VOCAB + MEDIA_IDS,
    "conf_num_attention_heads": 4,
    "conf_num_hidden_layers": 3,
    "sscp_conv_channel_size": [16, 8],
    "input_feat_size": 128,
}
IDS: dict[str, Any] = {
    "boi_token_id": 500,
    "boa_token_id": 501,
    "eoi_token_id": TEXT_VOCAB,
    "image_token_id": TEXT_VOCAB + 1,
    "eoa_token_id": TEXT_VOCAB + MEDIA_IDS,
    "audio_token_id": TEXT_VOCAB + MEDIA_IDS + 1,
    "vision_soft_tokens_per_image": 16,
    "audio_soft_tokens_per_image": 12,
}


def multimodal_config(**changes: Any) -> dict[str, Any]:
    """config.json of the tiny multimodal model; `changes` to its top level."""
    return copy.deepcopy(
        {
            "model_type": "gemma3n",
            "text_config": {
                "model_type": "gemma3n_text",
                **SHAPE,
                "bos_token_id": 2,
                "eos_token_id": [1],
                "pad_token_id": 0,
            },
            "vision_config": VISION,
            "audio_config": AUDIO,
            **IDS,
            **changes,
        }
    )
