"""Random encoders: the tensors are those of timm and transformers, and our loader knows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.picture_models import PREFIX, picture
from benchmarks.synthetic.towers import (
    AUDIO,
    VISION,
    TowerTensor,
    audio_tensors,
    embedder_tensors,
    matrix,
    norm,
    vision_tensors,
)
from benchmarks.synthetic.values import from_bf16
from benchmarks.tower_checkpoint import multimodal_config, text_tensors, write_tensors
from transformers import Gemma3nAudioConfig, Gemma3nAudioEncoder

from matryo.checkpoint.audio_pack import audio_shapes
from matryo.checkpoint.vision_pack import vision_tensors as vision_tensors_of
from matryo.tower_config import TowerConfig
from matryo.train import importable


class Shapes:
    """A source of tensors of which only the shapes are asked for."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def full_name(self, name: str) -> str:
        return name

    def read(self, name: str) -> Any:
        raise AssertionError(f"{name} was read")

    def forget(self, name: str) -> None: ...


def named(tensors: list[TowerTensor], prefix: str) -> dict[str, tuple[int, ...]]:
    assert all(tensor.name.startswith(prefix) for tensor in tensors)
    return {tensor.name.removeprefix(prefix): tensor.shape for tensor in tensors}


def test_picture_tensors_are_those_of_timm() -> None:
    importable.install()
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("mobilenetv5_300m_enc")
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert named(vision_tensors(), VISION) == expected
    assert VISION == PREFIX


def test_sound_tensors_are_those_of_transformers() -> None:
    with torch.device("meta"):
        model = Gemma3nAudioEncoder(Gemma3nAudioConfig())
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert named(audio_tensors(), AUDIO) == expected


def test_our_loader_takes_the_config_and_the_shapes() -> None:
    towers = TowerConfig.from_json(multimodal_config())
    assert towers.audio is not None and towers.vision is not None
    assert named(audio_tensors(), AUDIO) == audio_shapes(towers.audio)
    shapes = named(vision_tensors(), VISION)
    packed = vision_tensors_of(Shapes(shapes), towers.vision, "f32")
    assert len(packed) == len(shapes)


def test_names_are_unique_over_all_parts() -> None:
    parts = [
        *text_tensors(), *vision_tensors(), *audio_tensors(),
        *embedder_tensors(2048, "vision", 2048), *embedder_tensors(2048, "audio", 1536),
    ]  # fmt: skip
    assert len({tensor.name for tensor in parts}) == len(parts)
    assert sum(tensor.num_values for tensor in vision_tensors()) == pytest.approx(294.1e6, rel=1e-3)


def test_a_file_holds_the_drawn_values_in_their_shapes(tmp_path: Path) -> None:
    tensors = [TowerTensor("a", (6, 5, 3, 3), 0.0, 0.1), norm("b", 4000), matrix("c", 300, 400)]
    write_tensors(tmp_path / "x.safetensors", tensors, seed=1)
    data = (tmp_path / "x.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    found = {
        name: from_bf16(np.frombuffer(data[start + first : start + last], np.uint16)).reshape(
            entry["shape"]
        )
        for name, entry in header.items()
        if name != "__metadata__"
        for first, last in [entry["data_offsets"]]
    }
    assert {name: value.shape for name, value in found.items()} == {
        "a": (6, 5, 3, 3), "b": (4000,), "c": (300, 400),
    }  # fmt: skip
    assert found["b"].mean() == pytest.approx(1, abs=0.02)
    assert found["c"].std() == pytest.approx(1 / 20, rel=0.05)
    assert len(data) == start + 2 * (270 + 4000 + 120_000)


def test_pictures_are_the_same_every_time_and_differ_by_seed() -> None:
    assert (picture(32) == picture(32)).all()
    assert (picture(32, 1) != picture(32, 2)).any()
    one = picture(48)
    assert one.shape == (3, 48, 48) and one.dtype == np.float32
    assert 0 <= one.min() and one.max() <= 1 and one.std() > 0.1
