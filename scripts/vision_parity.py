"""Compares the full-size picture encoder with the reference on random weights, and times it.

In: sizes and weights kinds; 3 GB of memory; torch, and timm if it is installed (else the same
arithmetic in torch). Out: a line for each size and kind: largest difference, smallest cosine of a
feature with the reference's, seconds of ours. Weights are random, scaled so that no norm, GELU or
softmax is idle.

    python scripts/vision_parity.py --sizes 256 512 --weights f32 q8
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.mobilenet import (  # noqa: E402
    F32,
    FULL,
    FULL_STEM,
    State,
    features,
    picture,
    random_state,
    vision_config,
)
from helpers.vision import Source, cosines  # noqa: E402
from matryo.checkpoint.vision_pack import vision_tensors  # noqa: E402
from matryo.kernels import vision  # noqa: E402
from matryo.model.vision import VisionEncoder  # noqa: E402
from matryo.model.vision_weights import vision_weights  # noqa: E402
from matryo.train import importable  # noqa: E402

SIDE = 16
CONFIG = replace(vision_config(SIDE), stage_strides=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256])
    parser.add_argument("--weights", nargs="+", default=["f32", "q8"])
    options = parser.parse_args()
    state = random_state(FULL, FULL_STEM)
    expected = {size: reference(state, picture(size, size)) for size in options.sizes}
    for weights in options.weights:
        encoder = build(state, weights)
        for size in options.sizes:
            pixels = picture(size, size)
            encoder.encode(pixels)
            start = time.perf_counter()
            got = encoder.encode(pixels)
            seconds = time.perf_counter() - start
            difference = np.abs(got - expected[size]).max()
            cosine = cosines(got, expected[size])
            print(
                f"{weights:4} {size:4}: largest difference {difference:.2g} of "
                f"{np.abs(expected[size]).max():.2f}, cosine {cosine.min():.6f} at least, "
                f"{cosine.mean():.6f} mean, {seconds:.2f} s",
                flush=True,
            )


def build(state: State, weights: str) -> VisionEncoder:
    tensors = {
        tensor.name: next(tensor.blocks())
        for tensor in vision_tensors(Source(state), CONFIG, weights)
    }
    return VisionEncoder(CONFIG, vision_weights(CONFIG, tensors, vision.Filter), vision)


def reference(state: State, pixels: F32) -> F32:
    if find_spec("timm") is None:
        return features(state, FULL, pixels, SIDE)
    importable.install()
    from helpers.timm_encoder import timm_features

    return timm_features(state, FULL, pixels, SIDE, FULL_STEM)


if __name__ == "__main__":
    main()
