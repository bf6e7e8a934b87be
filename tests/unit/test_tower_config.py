"""The towers' part of config.json: every key is used, named as meaningless, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.random_weights import SHAPE
from helpers.towers import BLOCK_ARGS, multimodal_config
from matryo.errors import ConfigError
from matryo.tower_config import TowerConfig

# What transformers writes for the released models.
RELEASED: dict[str, Any] = {
    "architectures": ["Gemma3nForConditionalGeneration"],
    "model_type": "gemma3n",
    "text_config": {"model_type": "gemma3n_text"},
    "eos_token_id": [1, 106],
    "torch_dtype": "bfloat16",
    "initializer_range": 0.02,
    "vision_config": {
        "architecture": "mobilenetv5_300m_enc", "do_pooling": True, "hidden_size": 2048,
        "initializer_range": 0.02, "label_names": ["LABEL_0", "LABEL_1"], "model_args": None,
        "model_type": "gemma3n_vision", "num_classes": 2, "rms_norm_eps": 1e-06,
        "torch_dtype": "bfloat16", "vocab_offset": 262144, "vocab_size": 128,
    },
    "audio_config": {
        "conf_attention_chunk_size": 12, "conf_attention_context_left": 13,
        "conf_attention_context_right": 0, "conf_attention_logit_cap": 50.0,
        "conf_conv_kernel_size": 5, "conf_num_attention_heads": 8, "conf_num_hidden_layers": 12,
        "conf_reduction_factor": 4, "conf_residual_weight": 0.5, "gradient_clipping": 1e10,
        "hidden_size": 1536, "input_feat_size": 128, "model_type": "gemma3n_audio",
        "rms_norm_eps": 1e-06, "sscp_conv_channel_size": [128, 32],
        "sscp_conv_group_norm_eps": 0.001, "sscp_conv_kernel_size": [[3, 3], [3, 3]],
        "sscp_conv_stride_size": [[2, 2], [2, 2]], "torch_dtype": "bfloat16",
        "vocab_offset": 262272, "vocab_size": 128,
    },
}  # fmt: skip


def test_the_released_shape() -> None:
    towers = TowerConfig.from_json(RELEASED)
    vision, audio = towers.vision, towers.audio
    assert vision is not None and audio is not None
    assert (vision.hidden_size, vision.output_side, vision.stage_strides) == (2048, 16, None)
    ids = vision.ids
    assert (ids.begin, ids.soft, ids.end, ids.count) == (255_999, 262_145, 262_144, 256)
    ids = audio.ids
    assert (ids.begin, ids.soft, ids.end, ids.count) == (256_000, 262_273, 262_272, 188)
    assert ids.padding == 262_399
    assert (audio.head_dim, audio.past_frames, audio.frames_per_token) == (192, 12, 16)


def test_the_tiny_shape_and_where_it_is_read_from(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(multimodal_config()))
    towers = TowerConfig.from_file(path)
    assert towers.vision is not None and towers.audio is not None
    assert towers.vision.stage_strides == (2, 2, 2, 2) and towers.vision.output_side == 4
    assert (towers.audio.num_layers, towers.audio.stem_channels) == (3, (16, 8))


def test_text_only_checkpoints_have_no_towers() -> None:
    assert TowerConfig.from_json({"model_type": "gemma3n_text", **SHAPE}) == TowerConfig(
        vision=None, audio=None
    )
    document = multimodal_config()
    del document["vision_config"], document["audio_config"]
    assert TowerConfig.from_json(document) == TowerConfig(vision=None, audio=None)


def test_a_grid_is_a_square_of_the_soft_ids() -> None:
    with pytest.raises(ConfigError, match=r"vision_soft_tokens_per_image is 17.*4 x 4"):
        TowerConfig.from_json(multimodal_config(vision_soft_tokens_per_image=17))


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("", "quantization_config", {"bits": 4}, "quantization_config is"),
        ("", "surprise", 1, "unknown key 'surprise' in config.json"),
        ("", "vision_config", 3, "vision_config is 3"),
        ("", "image_token_id", 5, "image_token_id is 5"),
        ("", "image_token_id", 512, "image_token_id is 512"),
        ("", "audio_token_id", 10**9, "audio_token_id is 1000000000"),
        ("", "audio_soft_tokens_per_image", 0, "audio_soft_tokens_per_image is 0"),
        ("vision_config", "architecture", "resnet50", "architecture is 'resnet50'"),
        ("vision_config", "surprise", 1, "unknown key 'surprise' in vision_config"),
        ("vision_config", "vocab_offset", 511, "vocab_offset 511"),
        ("vision_config", "vocab_size", 15, "without a gap"),
        ("vision_config", "model_args", [1], "model_args is"),
        ("vision_config", "model_args", {"depth": 3}, "unknown key 'depth' in model_args"),
        ("vision_config", "model_args", {"pad_type": ""}, "pad_type is ''"),
        ("vision_config", "model_args", {"block_args": [[]] * 4}, r"block_args\[0\] is"),
        ("vision_config", "model_args", {"block_args": ["er"] * 4}, r"block_args\[0\] is 'er'"),
        ("vision_config", "model_args", {"block_args": BLOCK_ARGS[:1]}, "2 to 16 stages"),
        ("vision_config", "model_args", {"block_args": BLOCK_ARGS * 2}, "divide the picture by"),
        (
            "vision_config",
            "model_args",
            {"block_args": [[{**BLOCK_ARGS[0][0], "se_ratio": 0.25}]] * 2},
            "se_ratio is 0.25",
        ),
        (
            "vision_config",
            "model_args",
            {"block_args": [[{**BLOCK_ARGS[0][0], "block_type": "ir"}]] * 2},
            r"block_args\[0\]\[0\].block_type is 'ir'",
        ),
        ("audio_config", "conf_attention_context_right", 1, "conf_attention_context_right is 1"),
        ("audio_config", "hidden_size", 60, "hidden_size 60"),
        ("audio_config", "rms_norm_eps", 0, "rms_norm_eps is 0"),
        ("audio_config", "sscp_conv_channel_size", [128], "sscp_conv_channel_size"),
        ("audio_config", "sscp_conv_kernel_size", [[3, 3], [5, 5]], "sscp_conv_kernel_size"),
        ("audio_config", "surprise", 1, "unknown key 'surprise' in audio_config"),
        ("audio_config", "gradient_clipping", float("nan"), "gradient_clipping is nan"),
    ],
)
def test_what_cannot_be_used_is_named(section: str, key: str, value: Any, message: str) -> None:
    document = multimodal_config()
    (document[section] if section else document)[key] = value
    with pytest.raises(ConfigError, match=message):
        TowerConfig.from_json(document)
