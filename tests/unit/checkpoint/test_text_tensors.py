"""The tensors that are expected are those that transformers writes, and each has its purpose."""

from __future__ import annotations

import torch
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

from helpers.random_weights import SMALL, config_of
from matryo.checkpoint.text_tensors import (
    FFN_MATRICES,
    LAYER_MATRICES,
    LAYER_VECTORS,
    dead_names,
    text_shapes,
)
from matryo.kernels.layer import MATRICES, VECTORS


def test_names_and_shapes_are_those_of_transformers() -> None:
    with torch.device("meta"):
        model = Gemma3nForCausalLM(Gemma3nTextConfig(**SMALL)).model
    theirs = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    config = config_of(SMALL)
    used, dead = text_shapes(config), dead_names(config)
    written = theirs.keys() - dead
    assert {name: theirs[name] for name in written} == used


def test_tensors_of_readers_that_own_no_keys_and_values_are_dead() -> None:
    config = config_of(SMALL)
    owners, layers = config.num_owners, config.num_layers
    assert dead_names(config) == {
        f"layers.{layer}.self_attn.{name}.weight"
        for layer in range(owners, layers)
        for name in ("k_proj", "v_proj", "k_norm")
    }
    assert not dead_names(config) & text_shapes(config).keys()


def test_the_tables_have_the_kernels_names() -> None:
    assert set(LAYER_VECTORS) == set(VECTORS)
    # The projection of all layers' per-layer inputs is one tensor; kernels see a layer's rows.
    assert set(LAYER_MATRICES) == set(MATRICES) - {"ple_model_projection"}
    assert set(FFN_MATRICES) == {"gate", "up", "down"}
