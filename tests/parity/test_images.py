"""Pictures are resized as the checkpoint's image processor in transformers resizes them."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from matryo.inputs.image import load_image

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def processor() -> Any:
    """With the settings of the Gemma 3n checkpoints."""
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision"):
        # A torchvision built for another torch misses these operators and stops at import; resizing
        # needs neither.
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                library.define(f"{name}(Tensor dets, Tensor scores, float limit) -> Tensor")
        from transformers import SiglipImageProcessor as Processor
    else:
        from transformers import SiglipImageProcessorPil as Processor
    return Processor(
        size={"height": 96, "width": 96}, resample=2, do_normalize=False, do_convert_rgb=True
    )


@pytest.mark.parametrize("shape", [(40, 60), (96, 96), (300, 50), (97, 400)])
def test_pixels_are_within_one_grey_level(
    processor: Any, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    rgb = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = processor(rgb, return_tensors="np")["pixel_values"][0]
    got = load_image(rgb, 96)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1.001 / 255
    assert np.abs(got - expected).mean() < 0.1 / 255
