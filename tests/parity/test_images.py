"""Pictures are resized as the checkpoint's image processor in transformers resizes them."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from matryo.inputs.image import load_image

SHAPES = [(40, 60), (96, 96), (300, 50), (97, 400)]


def reference(name: str, rgb: np.ndarray) -> np.ndarray:
    """Pixels by an image processor with the settings of the Gemma 3n checkpoints but its size."""
    import transformers

    processor: Any = getattr(transformers, name)(
        size={"height": 96, "width": 96}, resample=2, do_normalize=False, do_convert_rgb=True
    )
    return np.asarray(processor(rgb, return_tensors="np")["pixel_values"][0])


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_equal_those_of_the_processor_on_pillow(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    rgb = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = reference("SiglipImageProcessorPil", rgb)
    np.testing.assert_allclose(load_image(rgb, 96), expected, rtol=0, atol=1e-6)


@pytest.mark.skipif(not importlib.util.find_spec("torchvision"), reason="needs torchvision")
@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_within_one_grey_level_of_the_processor_on_torchvision(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    rgb = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    difference = np.abs(load_image(rgb, 96) - reference("SiglipImageProcessor", rgb))
    assert difference.max() <= 1.001 / 255
    assert difference.mean() <= 0.25 / 255
