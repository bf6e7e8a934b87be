"""A big encoder as the teacher of a small one: its features, after a projection.

In: soft embeddings of pictures and clips as the student's decoder gets them, the same media through
a teacher's encoders. Out: losses with gradients for the student and the projections. A projection
turns the student's width into the teacher's; where both cut a picture or a clip into different
numbers of tokens, the teacher's are averaged. Projections are not part of the model: they end with
the run.

n pictures or clips · S soft ids of one · d model
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import Gemma3nForConditionalGeneration
from transformers.utils import logging

from matryo.errors import CheckpointError, ConfigError

KINDS = ("vision", "audio")


class EncoderTeacher:
    """The encoders of a Gemma 3n checkpoint, without gradients."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.width: int = model.config.get_text_config().hidden_size
        self.side: int = model.config.vision_config.model_args.get("img_size", 768)

    @classmethod
    def open(cls, directory: Path) -> EncoderTeacher:
        """Reads a Hugging Face directory. Raises CheckpointError."""
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            # Of any other config transformers makes a model with encoders of full size.
            document = json.loads((directory / "config.json").read_text(encoding="utf-8"))
            if document.get("model_type") != "gemma3n" or "text_config" not in document:
                raise ValueError("config.json has no encoders")
            model = Gemma3nForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
        except Exception as error:  # whatever a broken file makes its readers raise
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"holds no encoders of a Gemma 3n: {reason}", file=str(directory)
            ) from error
        return cls(model)

    @torch.no_grad()
    def __call__(self, media: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Soft embeddings (n, S, d) by kind, of a batch's pixel_values and input_features."""
        found: dict[str, torch.Tensor] = {}
        if "pixel_values" in media:
            pixels = media["pixel_values"]
            if pixels.shape[-1] != self.side:
                size = (self.side, self.side)
                pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
            found["vision"] = self.model.model.get_image_features(pixels).pooler_output
        if "input_features" in media:
            # True is padding here, where the model's own forward takes the opposite.
            padding = ~media["input_features_mask"]
            found["audio"] = self.model.model.get_audio_features(
                media["input_features"], padding
            ).pooler_output
        return found


class FeatureRegression(torch.nn.Module):
    """Projections from the student's width to the teacher's, and the distance behind them."""

    def __init__(self, width: int, teacher_width: int, kinds: tuple[str, ...] = KINDS) -> None:
        """Draws from torch's generator: seed it. Raises ConfigError for an unknown kind."""
        super().__init__()
        for kind in kinds:
            if kind not in KINDS:
                raise ConfigError(f"no encoder of {kind}; there are {', '.join(KINDS)}")
        self.projections = torch.nn.ModuleDict(
            {kind: torch.nn.Linear(width, teacher_width) for kind in kinds}
        )

    def losses(
        self,
        soft: Mapping[str, torch.Tensor],
        wanted: Mapping[str, torch.Tensor],
        num_tokens: Sequence[int],
    ) -> dict[str, torch.Tensor]:
        """Of every kind that a batch has; num_tokens: of each clip."""
        counts = {"audio": torch.tensor(num_tokens)} if num_tokens else {}
        return {
            f"{kind} features": self(kind, soft[kind], wanted[kind], counts.get(kind))
            for kind in self.projections
            if kind in soft and kind in wanted
        }

    def forward(
        self,
        kind: str,
        soft: torch.Tensor,
        wanted: torch.Tensor,
        num_tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """soft (n, S, d), wanted (n, S', d'): squared distance of what is projected over the
        wanted's squared length, mean over tokens; 1 = as far as zero is.

        num_tokens (n,): how many of the S belong to each; None = all
        """
        target = resampled(wanted.detach().float(), soft.shape[1])
        got = self.projections[kind](soft).float()
        error = (got - target).square().sum(-1)
        size = target.square().sum(-1)
        if num_tokens is not None:
            kept = torch.arange(soft.shape[1], device=soft.device)[None] < num_tokens[:, None]
            error, size = error[kept], size[kept]
        loss: torch.Tensor = error.mean() / size.mean().clamp(min=1e-12)
        return loss


def resampled(features: torch.Tensor, count: int) -> torch.Tensor:
    """(n, S', d) to (n, count, d) by averages: over a square if both numbers are squares, as the
    tokens of a picture are, else along the tokens.
    """
    n, length, width = features.shape
    if length == count:
        return features
    rows = features.transpose(1, 2)
    side, new = round(length**0.5), round(count**0.5)
    if side * side == length and new * new == count:
        grid = functional.adaptive_avg_pool2d(rows.reshape(n, width, side, side), new)
        return grid.flatten(2).transpose(1, 2)
    return functional.adaptive_avg_pool1d(rows, count).transpose(1, 2)
