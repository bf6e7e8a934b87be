"""What `matryo slice` writes is one checkpoint for transformers, for us and as a prefix view."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import Gemma3nForCausalLM

import matryo
from helpers.models import random_ids
from helpers.runs import expected, left_padded
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.slice import slice_checkpoint
from parity.conftest import PLAN_NAMES, Slices, plans_of

TOLERANCE = 5e-4


@pytest.fixture(scope="session")
def whole(tiny_checkpoint: Path) -> Iterator[matryo.Model]:
    """The tiny checkpoint as a user opens it, f32 weights and K/V."""
    with matryo.load(tiny_checkpoint, weights="f32") as model:
        yield model


@pytest.mark.parametrize("name", PLAN_NAMES)
def test_a_slice_is_the_prefix_view(
    whole: matryo.Model,
    slices: Slices,
    tiny_checkpoint: Path,
    tmp_path: Path,
    rng: np.random.Generator,
    name: str,
) -> None:
    """For us bit for bit; for transformers, which must find every tensor, within rounding."""
    plan, ids = plans_of(whole.config)[name], random_ids(rng, 40)
    view = whole.logits(ids, plan)
    slice_checkpoint(HuggingFaceSource(tiny_checkpoint), plan, tmp_path / "slice")
    with matryo.load(tmp_path / "slice", weights="f32") as cut:
        assert np.array_equal(cut.logits(ids, "full"), view)
    slices(name).save_pretrained(tmp_path / "theirs")
    assert _shapes(tmp_path / "slice") == _shapes(tmp_path / "theirs")
    theirs: Any = Gemma3nForCausalLM.from_pretrained(
        tmp_path / "slice", dtype=torch.float32, attn_implementation="eager"
    )
    assert np.abs(expected(theirs, ids) - view).max() < TOLERANCE


def _shapes(directory: Path) -> dict[str, list[int]]:
    """Names and shapes of the tensors of a checkpoint in one file."""
    with safe_open(directory / "model.safetensors", "numpy") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}


@pytest.mark.parametrize("name", ["full", "e2b"])
def test_left_padded_rows_of_model_logits(
    whole: matryo.Model, slices: Slices, rng: np.random.Generator, name: str
) -> None:
    """The public call with a mask, against transformers with the same mask."""
    plan = plans_of(whole.config)[name]
    prompts = [random_ids(rng, count) for count in (13, 20, 7)]
    padded, arguments = left_padded(prompts)
    with torch.no_grad():
        want = slices(name)(padded, use_cache=False, **arguments).logits.numpy()
    mask = arguments["attention_mask"].numpy()
    got = whole.logits(padded.numpy(), plan, mask=mask, chunk=6)
    assert not got[mask == 0].any()
    assert np.abs(got - want)[mask == 1].max() < TOLERANCE
    last = whole.logits(padded.numpy(), plan, "last", mask=mask)
    assert np.array_equal(last[:, 0], got[:, -1])
