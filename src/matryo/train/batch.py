"""Rows as tensors: padded on the right, pictures and sounds in the order of their soft ids.

In: samples and the store of their media. Out: a `Batch`. Causal attention never looks at what is
padded behind a row, so no mask is needed; the padding has no labels.

B rows · T tokens of the longest · P pictures · C clips · F frames of the longest
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from matryo.train.data import Corpus, Sample
from matryo.train.head import IGNORED

PADDING = 0  # the id behind a row; what it is does not matter


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of a pass and its labels.

    input_ids, labels (B, T): labels[t] is the id after input_ids[t], or IGNORED
    media: pixel_values (P, 3, S, S), input_features (C, F, bins), input_features_mask (C, F), as
    the model's forward takes them; those that there are
    shown, said: what each picture shows and each clip says, () or None if nobody says so
    num_labels: labels that are not IGNORED
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    media: dict[str, torch.Tensor]
    shown: list[Sequence[str]] = field(default_factory=list)
    said: list[str | None] = field(default_factory=list)
    num_labels: int = 0

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        media = {name: value.to(device) for name, value in self.media.items()}
        return replace(
            self, input_ids=self.input_ids.to(device), labels=self.labels.to(device), media=media
        )


def make_batch(
    samples: Sequence[tuple[Sample, Corpus]],
    rngs: Sequence[np.random.Generator | None],
) -> Batch:
    """rngs: one a row, which its media are changed with; None = as at run time."""
    longest = max(len(sample.ids) for sample, _ in samples) - 1
    ids = np.full((len(samples), longest), PADDING, np.int64)
    labels = np.full((len(samples), longest), IGNORED, np.int64)
    pixels: list[torch.Tensor] = []
    sounds: list[tuple[torch.Tensor, int]] = []
    shown: list[Sequence[str]] = []
    said: list[str | None] = []
    for row, ((sample, corpus), rng) in enumerate(zip(samples, rngs, strict=True)):
        length = len(sample.ids) - 1
        ids[row, :length] = sample.ids[:-1]
        labels[row, :length] = np.where(sample.learned[1:], sample.ids[1:], IGNORED)
        if corpus.media is None:
            continue
        for index in sample.pictures:
            pixels.append(torch.from_numpy(corpus.media.pixels(index, rng)))
            shown.append(sample.labels if len(sample.pictures) == 1 else ())
        for index in sample.sounds:
            mel, valid = corpus.media.mel(index, rng)
            sounds.append((torch.from_numpy(mel), valid))
            said.append(sample.transcript if len(sample.sounds) == 1 else None)
    media: dict[str, torch.Tensor] = {}
    if pixels:
        media["pixel_values"] = torch.stack(pixels)
    if sounds:
        # Zeros, which the first convolution puts behind a clip that is alone.
        features = torch.nn.utils.rnn.pad_sequence([mel for mel, _ in sounds], batch_first=True)
        lengths = torch.tensor([valid for _, valid in sounds])
        media["input_features"] = features
        media["input_features_mask"] = torch.arange(features.shape[1])[None] < lengths[:, None]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(labels),
        media,
        shown,
        said,
        int((labels != IGNORED).sum()),
    )
