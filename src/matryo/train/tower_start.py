"""Initial values of the encoders, from which they learn fast without batch norms.

In: a multimodal model of transformers. Out: the same, its encoders filled anew. Every matrix keeps
the size of what passes through it; what is added to a residual stream begins small, but not so
small as the encoder's own 1e-5, which only deep networks need.
"""

from __future__ import annotations

import math
from typing import Any

import torch

LAYER_SCALE = 0.3  # of blocks whose output is added to their input
_AUDIO_ENDS = ("linear_end.weight",)  # not normalised before they are added


@torch.no_grad()
def initialise_towers(model: Any) -> None:
    """Draws from torch's generator: seed it."""
    inner = model.model
    for name, weight in inner.vision_tower.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=1 / math.sqrt(math.prod(weight.shape[1:])))
        elif name.endswith("bias"):
            weight.zero_()
        else:
            weight.fill_(1.0)
    for block in inner.vision_tower.modules():
        scale = getattr(block, "layer_scale", None)
        gamma = getattr(scale, "gamma", None)
        if gamma is not None and getattr(block, "has_skip", True):
            gamma.fill_(LAYER_SCALE)
    for name, weight in inner.audio_tower.named_parameters():
        if weight.ndim > 1:
            size = 0.5 if name.endswith(_AUDIO_ENDS) else 1.0
            weight.normal_(std=size / math.sqrt(math.prod(weight.shape[1:])))
    for embedder in (inner.embed_vision, inner.embed_audio):
        embedder.embedding.weight.normal_()
        weight = embedder.embedding_projection.weight
        weight.normal_(std=1 / math.sqrt(weight.shape[1]))
