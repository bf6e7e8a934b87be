"""A tiny sound encoder with random weights, for tests that need no oracle, and synthetic sound.

Weights are scaled so that every non-linearity matters: scores around the soft cap, branch norms
around 0.3, filters that keep the size of what they read.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.audio_pack import audio_shapes, audio_tensors
from matryo.checkpoint.pack import pack_in_memory
from matryo.kernels import audio as native
from matryo.kernels import reference_audio
from matryo.model.audio import AudioEncoder
from matryo.model.audio_weights import build_audio_weights
from matryo.tower_config import AudioConfig, MediaIds

F32 = npt.NDArray[np.float32]

# As transformers spells it; 3 heads of 16, 20 mel bins, a soft cap that bites.
TINY: dict[str, Any] = {
    "model_type": "gemma3n_audio",
    "vocab_size": 16,
    "vocab_offset": 528,
    "input_feat_size": 20,
    "hidden_size": 48,
    "conf_attention_context_left": 13,
    "conf_attention_logit_cap": 5.0,
    "conf_num_attention_heads": 3,
    "conf_num_hidden_layers": 3,
    "sscp_conv_channel_size": [8, 4],
}
TINY_CONFIG = AudioConfig(
    ids=MediaIds(begin=500, soft=529, end=528, count=188, first=528, size=16),
    hidden_size=48,
    eps=1e-6,
    num_mels=20,
    num_layers=3,
    num_heads=3,
    head_dim=16,
    past_frames=12,
    logit_cap=5.0,
    conv_kernel=5,
    reduction=4,
    residual_weight=0.5,
    stem_channels=(8, 4),
    group_norm_eps=1e-3,
    clip=1e10,
)


class DictSource:
    """Tensors in memory, as `audio_tensors` reads them."""

    def __init__(self, tensors: Mapping[str, F32]) -> None:
        self._tensors = tensors
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tensor.shape for name, tensor in tensors.items()
        }

    def read(self, name: str, rows: slice = slice(None), /) -> F32:
        return self._tensors[name][rows].copy()

    def forget(self, name: str, rows: slice = slice(None), /) -> None:
        pass


def random_audio_state(config: AudioConfig, seed: int = 0) -> dict[str, F32]:
    """Every tensor of a checkpoint below `audio_tower.`."""
    rng = np.random.default_rng(seed)
    return {
        name: _values(name, shape, rng).astype(np.float32)
        for name, shape in audio_shapes(config).items()
    }


def _values(
    name: str, shape: tuple[int, ...], rng: np.random.Generator
) -> npt.NDArray[np.floating]:
    noise = rng.standard_normal(shape)
    if name.endswith(("post_layer_norm.weight", "post_norm.weight")):
        return 0.4 + 0.1 * noise
    if name.endswith("norm.weight"):
        return 1.0 + 0.2 * noise
    if name.endswith("per_dim_scale"):
        return 0.5 + 0.5 * noise
    gain = 1.7 if name.endswith(("q_proj.weight", "k_proj.weight", "pos_proj.weight")) else 1.0
    scaled: npt.NDArray[np.floating] = gain * noise / np.sqrt(np.prod(shape[1:]))
    return scaled


def packed_audio(
    config: AudioConfig, tensors: Mapping[str, F32], kind: str = "f32"
) -> dict[str, npt.NDArray[Any]]:
    """The tensors of `audio.safetensors`."""
    return pack_in_memory(audio_tensors(DictSource(tensors), config, kind))


def audio_encoder(
    config: AudioConfig = TINY_CONFIG,
    tensors: Mapping[str, F32] | None = None,
    kind: str = "f32",
    ops: ModuleType = native,
) -> AudioEncoder:
    """The encoder over native kernels, or over `reference_audio`."""
    packed = packed_audio(config, random_audio_state(config) if tensors is None else tensors, kind)
    return AudioEncoder(config, build_audio_weights(config, packed, ops.DenseMatrix), ops)


def reference_ops() -> ModuleType:
    """The numpy twin."""
    return reference_audio


def sound(rng: np.random.Generator, num_samples: int) -> F32:
    """A gliding tone, noise and silence."""
    seconds = np.arange(num_samples) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * (200 + 300 * np.sin(seconds)) * seconds)
    samples = tone + 0.05 * rng.standard_normal(num_samples)
    samples[num_samples // 2 : num_samples // 2 + num_samples // 8] = 0.0
    return samples.astype(np.float32)
