"""What the encoders of a pass gave, and what they learn beside the decoder.

In: a multimodal model, a batch. Out: soft embeddings of its pictures and clips, taken where the
model itself computes them; the auxiliary losses on them.

n pictures or clips · S soft ids of one · d model
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from matryo.train.auxiliary import Auxiliary
from matryo.train.batch import Batch
from matryo.train.nested import LanguageModel

_EMBEDDERS = {"vision": "embed_vision", "audio": "embed_audio"}


class SoftEmbeddings:
    """Remembers the embeddings (n, S, d) of the last pass, by encoder."""

    def __init__(self, model: LanguageModel) -> None:
        """A model without encoders never gives any."""
        self._found: dict[str, torch.Tensor] = {}
        for tower, name in _EMBEDDERS.items():
            embedder = getattr(model.model, name, None)
            if embedder is not None:
                embedder.register_forward_hook(self._hook(tower), with_kwargs=True)

    def take(self) -> dict[str, torch.Tensor]:
        """What was computed since the last call."""
        found, self._found = self._found, {}
        return found

    def _hook(self, tower: str) -> Any:
        def remember(module: Any, args: Any, kwargs: Mapping[str, Any], out: torch.Tensor) -> None:
            if kwargs.get("inputs_embeds") is not None:  # else it embeds ids
                self._found[tower] = out

        return remember


def encode(model: Any, media: Mapping[str, torch.Tensor]) -> None:
    """Runs the encoders alone."""
    if "pixel_values" in media:
        model.model.get_image_features(media["pixel_values"])
    if "input_features" in media:
        # True is padding here, where the model's own forward takes the opposite.
        model.model.get_audio_features(media["input_features"], ~media["input_features_mask"])


def auxiliary_losses(
    auxiliary: Auxiliary, soft: Mapping[str, torch.Tensor], batch: Batch, frames_per_token: int
) -> dict[str, torch.Tensor]:
    """classes, ctc: those that this batch has something to learn for."""
    found: dict[str, torch.Tensor | None] = {}
    if "vision" in soft:
        found["classes"] = auxiliary.classes(soft["vision"], batch.shown)
    if "audio" in soft:
        found["ctc"] = auxiliary.ctc(soft["audio"], num_tokens(batch, frames_per_token), batch.said)
    return {name: loss for name, loss in found.items() if loss is not None}


def num_tokens(batch: Batch, frames_per_token: int) -> list[int]:
    """Soft ids of each clip that are sound."""
    frames = batch.media["input_features_mask"].sum(1).tolist()
    return [-(-int(count) // frames_per_token) for count in frames]
