"""A tiny random Gemma 3n of `transformers` with every part: text, pictures, sound."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration

from helpers.files import write_json, write_tensors
from helpers.random_weights import F32, random_weight
from helpers.towers import multimodal_config


def tiny_multimodal(seed: int = 0) -> Gemma3nForConditionalGeneration:
    """The model of `helpers.towers.multimodal_config`, float32, in eval mode."""
    rng = np.random.default_rng(seed)
    document = multimodal_config()
    document.pop("model_type")
    config = Gemma3nConfig(**document)
    config._attn_implementation = "eager"
    model = Gemma3nForConditionalGeneration(config)
    model.train(False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = media_weight(name, tuple(parameter.shape), rng)
            parameter.copy_(torch.from_numpy(values))
    return model


def media_weight(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Random values that make the tower's non-linearities matter; text weights as in `tiny.py`."""
    if "_tower." not in name:
        return random_weight(name, shape, rng)
    mean, deviation = 0.0, 1.0 / math.sqrt(math.prod(shape[1:]) or 1)
    if name.endswith("gamma"):
        mean, deviation = 0.4, 0.1
    elif name.endswith("per_dim_scale"):
        deviation = 0.5
    elif len(shape) == 1:
        mean, deviation = (0.0, 0.3) if name.endswith("bias") else (1.0, 0.2)
    elif any(part in name for part in ("q_proj", "k_proj", "query", "pos_proj")):
        deviation *= 2.0  # attention that chooses
    return (mean + deviation * rng.standard_normal(shape)).astype(np.float32)


def reference_logits(
    model: Gemma3nForConditionalGeneration,
    ids: Any,
    images: Any = None,
    mels: Any = None,
    masks: Any = None,
) -> F32:
    """Logits (T, V) of one prompt: images (n, 3, H, W), mels (n, T, bins), masks (n, T) True =
    sound.
    """
    inputs: dict[str, Any] = {"input_ids": torch.tensor(np.asarray(ids))[None].long()}
    if images is not None:
        inputs["pixel_values"] = torch.from_numpy(np.asarray(images))
    if mels is not None:
        inputs["input_features"] = torch.from_numpy(np.asarray(mels))
        inputs["input_features_mask"] = torch.from_numpy(np.asarray(masks))
    with torch.no_grad():
        logits: F32 = model(**inputs, use_cache=False).logits[0].numpy()
    return logits


def write_multimodal(model: Gemma3nForConditionalGeneration, directory: Path) -> Path:
    """The model as a Hugging Face directory, under the names of released checkpoints.

    Not by `save_pretrained`: timm puts classes into the config it is given.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: ("F32", value.contiguous().numpy())
        for name, value in model.state_dict().items()
        if name != "lm_head.weight" and not name.endswith("embed_scale")
    }
    write_tensors(directory / "model.safetensors", tensors, {"format": "pt"})
    write_json(directory / "config.json", {**multimodal_config(), "dtype": "float32"})
    return directory
