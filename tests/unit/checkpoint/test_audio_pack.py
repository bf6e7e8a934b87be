"""Packing the sound encoder: names and shapes are strict, constants are folded, kinds are kept."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.sound import TINY_CONFIG, DictSource, packed_audio, random_audio_state
from matryo.checkpoint.audio_pack import audio_shapes, audio_tensors
from matryo.errors import CheckpointError, ConfigError
from matryo.kernels.audio import DenseMatrix
from matryo.model.audio_weights import build_audio_weights
from matryo.quantize import pack

STATE = random_audio_state(TINY_CONFIG)


@pytest.mark.parametrize("kind", ["f32", "bf16", "q8", "q4"])
def test_large_matrices_have_the_kind_and_lie_where_they_were(kind: str) -> None:
    packed = packed_audio(TINY_CONFIG, STATE, kind)
    weights = build_audio_weights(TINY_CONFIG, packed, DenseMatrix)
    block = weights.blocks[1]
    wanted = {"q8": "i8", "q4": "i8"}.get(kind, kind)
    assert block.feed_forward_end.up.kind == block.light_conv.start.kind == wanted
    assert block.attention.o.kind == weights.input.kind == wanted
    assert weights.stem[1].filter.kind == "f32"
    assert np.shares_memory(block.light_conv.end.data, packed["blocks.1.conv.end"])


def test_what_does_not_depend_on_the_sound_is_folded() -> None:
    packed = packed_audio(TINY_CONFIG, STATE)
    learnt = STATE["conformer.2.attention.attn.per_dim_scale"].astype(np.float64)
    scale = np.log1p(np.exp(learnt)) / np.log(2) / np.sqrt(16)
    assert np.allclose(packed["blocks.2.attention.query_scale"], scale, rtol=1e-6)
    projection = STATE["conformer.2.attention.attn.relative_position_embedding.pos_proj.weight"]
    signal = np.concatenate([np.zeros(24), np.ones(24)])  # sines and cosines of distance 0
    assert np.allclose(packed["blocks.2.attention.position"][0], projection @ signal, atol=1e-5)
    taps = STATE["conformer.0.lconv1d.depthwise_conv1d.weight"]
    assert np.array_equal(packed["blocks.0.conv.taps"], taps[:, 0].T)


def test_the_shapes_of_the_released_encoder() -> None:
    from matryo.tower_config import AudioConfig

    config = AudioConfig(
        ids=TINY_CONFIG.ids, hidden_size=1536, eps=1e-6, num_mels=128, num_layers=12, num_heads=8,
        head_dim=192, past_frames=12, logit_cap=50.0, conv_kernel=5, reduction=4,
        residual_weight=0.5, stem_channels=(128, 32), group_norm_eps=1e-3, clip=1e10,
    )  # fmt: skip
    shapes = audio_shapes(config)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 681_348_640
    assert shapes["subsample_conv_projection.input_proj_linear.weight"] == (1536, 1024)


@pytest.mark.parametrize(
    "name", ["conformer.1.norm.weight", "conformer.0.lconv1d.depthwise_conv1d.weight"]
)
def test_missing_unknown_and_misshapen_tensors_are_named(name: str) -> None:
    missing = {key: value for key, value in STATE.items() if key != name}
    with pytest.raises(CheckpointError, match=f"{name}: tensor is missing"):
        audio_tensors(DictSource(missing), TINY_CONFIG, "q8")
    with pytest.raises(CheckpointError, match=f"{name}: wrong shape"):
        audio_tensors(DictSource({**STATE, name: STATE[name][1:]}), TINY_CONFIG, "q8")
    with pytest.raises(CheckpointError, match=r"conformer\.9.*unknown"):
        audio_tensors(
            DictSource({**STATE, "conformer.9.norm.weight": STATE[name]}), TINY_CONFIG, "q8"
        )
    with pytest.raises(CheckpointError, match="NaN"):
        packed_audio(TINY_CONFIG, {**STATE, name: STATE[name] * np.float32(np.nan)})


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="q3"):
        audio_tensors(DictSource(STATE), TINY_CONFIG, "q3")


def test_packed_tensors_are_checked_by_name() -> None:
    packed = packed_audio(TINY_CONFIG, STATE, "q8")
    wrong = {
        "input": packed["input"][1:],
        "stem.0.filter": packed["stem.0.filter"].astype(np.float64),
        "stem.1.norm": packed["stem.1.norm"][1:],
        "blocks.2.conv.taps": packed["blocks.2.conv.taps"].T,
        "blocks.0.ffn_end.up": packed["blocks.0.ffn_end.down"],
    }
    for name, array in wrong.items():
        with pytest.raises(CheckpointError, match=name):
            build_audio_weights(TINY_CONFIG, {**packed, name: array}, DenseMatrix)
        without = {key: value for key, value in packed.items() if key != name}
        with pytest.raises(CheckpointError, match=f"{name} is missing"):
            build_audio_weights(TINY_CONFIG, without, DenseMatrix)


def test_sound_encoders_of_earlier_versions_are_to_be_converted_again() -> None:
    packed = packed_audio(TINY_CONFIG, STATE, "q8")
    panels = pack(
        "q8", "panel", random_audio_state(TINY_CONFIG)["conformer.0.attention.post.weight"]
    )
    with pytest.raises(CheckpointError, match=r"attention\.o: q8 as an earlier.*[Cc]onvert"):
        build_audio_weights(TINY_CONFIG, {**packed, "blocks.0.attention.o": panels}, DenseMatrix)
