"""The two picture encoders in torch, with random weights, and the pictures they are given.

In: a models folder with `towers-hf`. Out: `mobilenet(folder)`, timm's MobileNet-V5-300M with the
checkpoint's weights; `sovit(side)`, timm's SoViT-400M of Gemma 3 (SigLIP so400m, patches of 14)
with weights of its own that depend on nothing but the seed; `picture(side)`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from matryo.train import importable

GEMMA_SIDES = {"mobilenet": 768, "sovit": 896}
"""The size of pictures that Gemma 3n and Gemma 3 give their encoders."""
PREFIX = "model.vision_tower.timm_model."


def picture(side: int, seed: int = 0) -> np.ndarray:
    """(3, side, side) float32 in [0, 1]: smooth spots of colour under some noise, as in a photo."""
    generator = np.random.default_rng([side, seed])
    coarse = generator.random((3, 9, 9))
    place = np.linspace(0, 8, side)
    low = np.minimum(place.astype(int), 7)
    part = place - low
    rows = coarse[:, low] * (1 - part)[:, None] + coarse[:, low + 1] * part[:, None]
    smooth = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    noisy = smooth + 0.1 * generator.standard_normal((3, side, side))
    return np.ascontiguousarray(noisy.clip(0, 1), dtype=np.float32)


def mobilenet(folder: Path) -> Any:
    """The encoder of `towers-hf` in float32; gives (1, 2048, 16, 16)."""
    importable.install()
    import timm
    from safetensors import safe_open

    model = timm.create_model("mobilenetv5_300m_enc")
    state = {}
    for path in (folder / "towers-hf").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                if name.startswith(PREFIX):
                    state[name.removeprefix(PREFIX)] = file.get_tensor(name).float()
    model.load_state_dict(state)
    return model.eval()


def sovit(side: int) -> Any:
    """SigLIP's encoder without its pooling head, as Gemma 3 uses it; gives (1, patches, 1152)."""
    importable.install()
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model(
        "vit_so400m_patch14_siglip_224", img_size=side, num_classes=0, global_pool=""
    )
    return model.eval()


def parameters(model: Any) -> int:
    return sum(int(weight.numel()) for weight in model.parameters())
