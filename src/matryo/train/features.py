"""A big encoder as the teacher of a small one: its features, after a projection.

In: soft embeddings of pictures and clips as the student's decoder gets them, the same media through
a teacher's encoders. Out: losses with gradients for the student and the projections. A projection
turns the student's width into the teacher's; where both cut a picture or a clip into different
numbers of tokens, the teacher's are averaged. Projections are not part of the model: they end with
the run.

n pictures or clips · S soft ids of one · d model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import Gemma3nForConditionalGeneration

from matryo.errors import CheckpointError, ConfigError
from matryo.inputs.text_format import read_json_object
from matryo.train.objective import relative_distance
from matryo.train.pretrained import read_model

KINDS = ("vision", "audio")


class EncoderTeacher:
    """The encoders of a Gemma 3n checkpoint, without gradients, on the device of their media."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.width: int = model.config.get_text_config().hidden_size
        self.side: int = model.config.vision_config.model_args.get("img_size", 768)

    @classmethod
    def open(cls, directory: Path) -> EncoderTeacher:
        """Reads a Hugging Face directory. Raises CheckpointError."""
        document = read_json_object(directory / "config.json")
        # Of any other config transformers makes a model with encoders of full size.
        if document.get("model_type") != "gemma3n" or "text_config" not in document:
            raise CheckpointError(
                "holds no encoders of a Gemma 3n: expected a config.json of model_type gemma3n "
                "with a text_config",
                file=str(directory),
            )
        return cls(read_model(Gemma3nForConditionalGeneration, directory))

    @torch.no_grad()
    def __call__(self, media: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Soft embeddings (n, S, d) by kind, of a batch's pixel_values and input_features."""
        found: dict[str, torch.Tensor] = {}
        if "pixel_values" in media:
            pixels = media["pixel_values"]
            self._move("vision", pixels.device)
            if pixels.shape[-1] != self.side:
                size = (self.side, self.side)
                pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
            found["vision"] = self.model.model.get_image_features(pixels).pooler_output
        if "input_features" in media:
            self._move("audio", media["input_features"].device)
            # True is padding here, where the model's own forward takes the opposite.
            padding = ~media["input_features_mask"]
            found["audio"] = self.model.model.get_audio_features(
                media["input_features"], padding
            ).pooler_output
        return found

    def _move(self, kind: str, device: torch.device) -> None:
        """Without the decoder, which is never run and may be too large for the device."""
        for name in (f"{kind}_tower", f"embed_{kind}"):
            getattr(self.model.model, name).to(device)


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
        counts: dict[str, torch.Tensor] = {}
        if num_tokens:
            counts["audio"] = torch.tensor(num_tokens, device=soft["audio"].device)
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
        """soft (n, S, d), wanted (n, S', d'): the `relative_distance` of what is projected from
        what is wanted.

        num_tokens (n,): how many of the S belong to each; None = all
        """
        target = resampled(wanted.detach().float(), soft.shape[1])
        got = self.projections[kind](soft).float()
        if num_tokens is not None:
            places = torch.arange(soft.shape[1], device=soft.device)
            kept = places[None] < num_tokens[:, None]
            got, target = got[kept], target[kept]
        return relative_distance(got, target)


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
