"""Packed tensors of the picture encoder: names, order of axes, kinds, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from helpers.mobilenet import TINY, State, random_state, vision_config
from helpers.vision import Source, packed
from matryo.checkpoint.safetensors import DTYPES
from matryo.checkpoint.vision_pack import PREFIX, vision_tensors
from matryo.errors import CheckpointError, ConfigError
from matryo.kernels.reference_pack import bf16_values

CONFIG = vision_config()
FINE = re.compile(  # never int8
    r"stages\.[01]\.|stages\.[23]\.0\.|fusion\.|stages\.2\.1\.expand|.*\.(key|value)$"
)
TRANSFORMED = ("stages.0.1.expand", "stages.0.2.expand")  # faster as floats than as integers


@pytest.fixture
def state() -> State:
    return random_state(TINY)


def test_channels_come_last(state: State) -> None:
    tensors = packed(state)
    dense, depthwise = state["blocks.0.0.conv_exp.weight"], state["blocks.1.0.dw_mid.conv.weight"]
    assert tensors["stages.0.0.expand"][5, 2, 1, 7] == dense[5, 7, 2, 1]
    assert tensors["stages.0.0.expand"].shape == (64, 3, 3, 16)
    assert tensors["stages.1.0.middle"][4, 1, 50] == depthwise[50, 0, 4, 1]
    assert tensors["stages.1.0.middle"].shape == (5, 5, 96)
    np.testing.assert_array_equal(tensors["fusion.norm"], state["msfa.norm.weight"])
    assert len(tensors) == len(state)


@pytest.mark.parametrize("weights", ["bf16", "q8", "q4"])
def test_only_dense_filters_are_rounded(state: State, weights: str) -> None:
    exact, rounded = packed(state), packed(state, weights)
    for name, array in exact.items():
        if array.ndim != 4 or name == "stem.filter":
            np.testing.assert_array_equal(rounded[name], array)
        elif weights == "bf16" or name in TRANSFORMED:
            np.testing.assert_allclose(bf16_values(rounded[name]), array, rtol=2**-8)
        else:
            assert rounded[name].dtype == (np.int16 if FINE.match(name) else np.int8)
            scales = rounded[f"{name}.scales"][:, None, None, None]
            assert (np.abs(rounded[name] * scales - array) <= 0.505 * scales).all()


@pytest.mark.parametrize("weights", ["f32", "bf16", "q8"])
def test_a_tensor_says_what_it_stores(state: State, weights: str) -> None:
    source = Source(state)
    for tensor in vision_tensors(source, CONFIG, weights):
        (array,) = tensor.blocks()
        dtype, shape = tensor.stored
        assert (array.dtype, array.shape) == (DTYPES[dtype], shape)
        assert array.nbytes == tensor.num_bytes and array.flags.c_contiguous
        assert list(tensor.blocks(1)) == []
    assert source.forgotten == set(state)


@pytest.mark.parametrize(
    "name",
    [
        "conv_stem.conv.weight",
        "blocks.0.1.bn2.weight",
        "blocks.1.0.pw_exp.bn.weight",
        "blocks.2.2.attn.value.norm.weight",
        "msfa.ffn.pw_proj.bn.weight",
        "msfa.norm.weight",
    ],
)
def test_a_missing_tensor_has_the_checkpoints_name(state: State, name: str) -> None:
    del state[name]
    with pytest.raises(CheckpointError, match=f"{PREFIX}{name}: tensor is missing"):
        packed(state)


def test_a_wrong_shape_has_the_checkpoints_name(state: State) -> None:
    name = "blocks.1.0.dw_mid.conv.weight"
    state[name] = state[name][:, :, :4]
    with pytest.raises(CheckpointError, match=f"{PREFIX}{name}: wrong shape .*5, 5, 96|4, 5, 96"):
        packed(state)
    state[name] = np.zeros((96, 2, 5, 5), np.float32)  # not depthwise
    with pytest.raises(CheckpointError, match=f"{PREFIX}{name}: wrong shape"):
        packed(state)


@pytest.mark.parametrize(
    "name", ["blocks.0.0.se.conv.weight", "head.weight", "blocks.1.0.dw_end.conv.weight"]
)
def test_an_unknown_tensor_is_named(state: State, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"{name}: unknown tensor"):
        packed({**state, name: np.ones(3, np.float32)})


def test_a_checkpoint_without_the_encoder() -> None:
    with pytest.raises(CheckpointError, match=rf"{PREFIX}conv_stem\.conv\.weight: .* is missing"):
        packed({})


def test_the_same_weights_twice(state: State) -> None:
    state["blocks.0.0.pw_exp.conv.weight"] = state["blocks.0.0.conv_exp.weight"]
    with pytest.raises(CheckpointError, match=r"the same weights as .*conv_exp"):
        packed(state)


def test_unknown_weights_are_refused(state: State) -> None:
    with pytest.raises(ConfigError, match="weights is 'q5'; allowed: f32, bf16, q8, q4"):
        packed(state, "q5")
