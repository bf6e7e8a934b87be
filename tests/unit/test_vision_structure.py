"""What the blocks of a picture encoder are, from the shapes of its tensors; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest

from helpers.mobilenet import FULL, FULL_STEM, TINY, random_state, shapes, vision_config
from helpers.vision import Source, packed
from matryo.checkpoint.vision_pack import vision_tensors
from matryo.errors import CheckpointError, ConfigError
from matryo.vision_structure import Attention, Bottleneck, Shape, vision_structure

CONFIG = vision_config()


@pytest.fixture
def tensors() -> dict[str, Shape]:
    """Names and shapes of the tiny encoder."""
    return {name: array.shape for name, array in packed(random_state(TINY)).items()}


def test_every_kind_of_block(tensors: dict[str, Shape]) -> None:
    structure = vision_structure(CONFIG, tensors)
    assert structure.stages[0] == (
        Bottleneck("stages.0.0", 16, 64, 16, 0, 3, 0, 2, False),
        Bottleneck("stages.0.1", 16, 64, 16, 0, 3, 0, 1, False),
    )
    assert structure.stages[1][0] == Bottleneck("stages.1.0", 16, 96, 24, 3, 1, 5, 2, True)
    assert structure.stages[1][1] == Bottleneck("stages.1.1", 24, 96, 24, 5, 1, 0, 1, True)
    assert structure.stages[2][2] == Attention("stages.2.2", 32, 3, 16, 3, True)
    assert structure.stages[3][2] == Attention("stages.3.2", 48, 4, 24, 0, True)
    assert structure.fusion == Bottleneck("fusion", 80, 160, 2048, 0, 1, 0, 1, False)
    assert (structure.stem_kernel, structure.stem_width, structure.stem_bias) == (3, 16, True)
    assert structure.shapes() == tensors


def test_strides_and_residuals(tensors: dict[str, Shape]) -> None:
    """A stage's first block halves the picture, in its last convolution that is not 1x1."""
    stages = vision_structure(CONFIG, tensors).stages
    blocks = [block for stage in stages for block in stage if isinstance(block, Bottleneck)]
    assert {block.name: block.strides for block in blocks if block.stride == 2} == {
        "stages.0.0": (1, 2, 1),
        "stages.1.0": (1, 1, 2),
        "stages.2.0": (1, 1, 2),
        "stages.3.0": (2, 1, 1),
    }
    assert [block.skip for block in blocks] == [block.stride == 1 for block in blocks]


def test_the_full_encoder() -> None:
    """The network of Gemma 3n: 84 blocks, 294 million weights."""
    full = {  # without their memory
        name: np.broadcast_to(np.zeros((), np.float32), shape)
        for name, shape in shapes(FULL, FULL_STEM).items()
    }
    config = replace(CONFIG, stage_strides=None)  # as released: without block_args
    tensors = vision_tensors(Source(full), config, "f32")
    structure = vision_structure(config, {tensor.name: tensor.shape for tensor in tensors})
    assert [len(stage) for stage in structure.stages] == [3, 5, 37, 39]
    assert structure.stages[2][9] == Attention("stages.2.9", 640, 12, 64, 3, True)
    assert structure.stages[3][1] == Attention("stages.3.1", 1280, 16, 96, 0, True)
    assert sum(prod(shape) for shape in structure.shapes().values()) == 294_126_912


MISSING = (
    "stem.filter", "stem.norm", "stages.0.0.expand", "stages.0.0.expand_norm", "stages.0.1.project",
    "stages.1.0.start_norm", "stages.1.0.middle", "stages.1.0.middle_norm",
    "stages.2.2.norm", "stages.2.2.key", "stages.2.2.key_down", "stages.2.2.key_down_norm",
    "stages.2.2.value", "stages.2.2.value_down", "stages.2.2.output", "stages.3.2.value",
    "fusion.expand", "fusion.project", "fusion.norm",
)  # fmt: skip


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_tensor_is_named(tensors: dict[str, Shape], name: str) -> None:
    """Or the one that has no meaning without it."""
    del tensors[name]
    with pytest.raises(CheckpointError, match=name.removesuffix("_norm").removesuffix("_down")):
        vision_structure(CONFIG, tensors)


@pytest.mark.parametrize("block", ["stages.0.0.", "stages.1.0.", "stages.2.2.", "stages.2."])
def test_missing_blocks_are_named(tensors: dict[str, Shape], block: str) -> None:
    left = {name: shape for name, shape in tensors.items() if not name.startswith(block)}
    with pytest.raises(
        CheckpointError, match=r"wrong shape|stage . of the picture encoder is missing"
    ):
        vision_structure(CONFIG, left)


WRONG: dict[str, Shape] = {
    "stem.filter": (16, 3, 3, 4),
    "stem.norm": (17,),
    "stem.bias": (1, 16),
    "stages.0.0.expand": (64, 3, 2, 16),
    "stages.0.1.project": (16, 3, 3, 64),
    "stages.1.0.start": (3, 5, 16),
    "stages.1.0.middle": (5, 5, 95),
    "stages.1.0.expand": (96, 16),
    "stages.1.0.gamma": (1,),
    "stages.2.2.query": (47, 1, 1, 32),
    "stages.2.2.key": (0, 1, 1, 32),
    "stages.2.2.value": (8, 1, 1, 32),
    "stages.2.2.value_down": (5, 5, 32),
    "stages.2.2.output": (32, 1, 1, 47),
    "fusion.expand": (160, 1, 1, 48),
    "fusion.norm": (2047,),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_shape_is_named(tensors: dict[str, Shape], name: str) -> None:
    tensors[name] = WRONG[name]
    with pytest.raises(CheckpointError, match=name):
        vision_structure(CONFIG, tensors)


UNKNOWN = ("stages.0.0.gate", "stages.2.2.start", "stages.2.1.query_down", "x", "stages.4x.0.norm")


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_tensor_is_named(tensors: dict[str, Shape], name: str) -> None:
    tensors[name] = (32,)
    with pytest.raises(CheckpointError, match=name):
        vision_structure(CONFIG, tensors)


def test_a_block_that_cannot_halve_the_picture(tensors: dict[str, Shape]) -> None:
    """1x1 convolutions only, or attention, as the first block of a stage."""
    del tensors["stages.3.0.start"], tensors["stages.3.0.start_norm"]
    with pytest.raises(CheckpointError, match=r"stages\.3\.0\.expand: .* only has 1x1"):
        vision_structure(CONFIG, tensors)
    tensors["stages.3.0.query"] = (48, 1, 1, 32)
    with pytest.raises(CheckpointError, match=r"stages\.3\.0\.query: .* attention cannot"):
        vision_structure(CONFIG, tensors)


def test_a_fusion_with_a_depthwise_convolution(tensors: dict[str, Shape]) -> None:
    tensors |= {"fusion.start": (3, 3, 80), "fusion.start_norm": (80,)}
    with pytest.raises(CheckpointError, match=r"fusion\.expand: .* only has 1x1"):
        vision_structure(CONFIG, tensors)


def test_the_config_has_to_agree(tensors: dict[str, Shape]) -> None:
    with pytest.raises(CheckpointError, match=r"stages of \[2, 2, 4, 4\] blocks; .* block_args"):
        vision_structure(replace(CONFIG, stage_strides=None), tensors)
    for strides in ((2, 2, 2), (2, 2, 1, 2)):
        with pytest.raises(ConfigError, match="4 stages"):
            vision_structure(replace(CONFIG, stage_strides=strides), tensors)
    with pytest.raises(CheckpointError, match=r"fusion\.project: .*hidden_size .*expected 2047"):
        vision_structure(replace(CONFIG, hidden_size=2047), tensors)
