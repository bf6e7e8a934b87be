"""Features of a big encoder teach a small one through a projection."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from matryo.errors import CheckpointError, ConfigError
from matryo.train.features import EncoderTeacher, FeatureRegression, resampled


def features(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_a_plain_computation_and_leaves_the_teacher_alone() -> None:
    torch.manual_seed(0)
    regression = FeatureRegression(6, 10, ("audio",))
    soft = features(1, 2, 5, 6).requires_grad_(True)
    wanted = features(2, 2, 5, 10).requires_grad_(True)
    counts = torch.tensor([5, 2])
    loss = regression("audio", soft, wanted, counts)
    linear: Any = regression.projections["audio"]
    distances = []
    for n, count in enumerate(counts.tolist()):
        for token in range(count):
            got = linear.weight @ soft[n, token] + linear.bias
            error, size = (got - wanted[n, token]).square().sum(), wanted[n, token].square().sum()
            distances.append((error / size).item())
    assert loss.item() == pytest.approx(sum(distances) / 7, rel=1e-5)
    loss.backward()
    assert wanted.grad is None
    assert soft.grad is not None and soft.grad[1, :2].any() and not soft.grad[1, 2:].any()
    assert linear.weight.grad.any()


def test_a_projection_learns_what_is_linear() -> None:
    torch.manual_seed(0)
    regression = FeatureRegression(6, 10)
    soft = features(3, 8, 4, 6)
    wanted = soft @ features(4, 6, 10)
    optimizer = torch.optim.Adam(regression.parameters(), 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = regression("vision", soft, wanted)
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3


def test_other_numbers_of_tokens_are_averaged() -> None:
    grid = torch.arange(16.0).reshape(1, 16, 1)
    assert resampled(grid, 16) is grid
    assert resampled(grid, 4).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    line = torch.arange(6.0).reshape(1, 6, 1)
    assert resampled(line, 3).flatten().tolist() == [0.5, 2.5, 4.5]


def test_a_checkpoint_gives_the_features_of_its_encoders(tiny_multimodal_model: Any) -> None:
    model = copy.deepcopy(tiny_multimodal_model)
    teacher = EncoderTeacher(model)
    side, bins = teacher.side, model.config.audio_config.input_feat_size
    mask = torch.ones(1, 48, dtype=torch.bool)
    media = {
        "pixel_values": features(5, 2, 3, side, side).abs().clamp(max=1.0),
        "input_features": features(6, 1, 48, bins),
        "input_features_mask": mask,
    }
    found = teacher(media)
    assert found["vision"].shape[0] == 2 and found["audio"].shape[0] == 1
    assert all(value.shape[2] == teacher.width for value in found.values())
    assert not any(value.requires_grad for value in found.values())
    smaller = {"pixel_values": torch.full((1, 3, side // 2, side // 2), 0.3)}
    whole = {"pixel_values": torch.full((1, 3, side, side), 0.3)}
    assert torch.allclose(teacher(smaller)["vision"], teacher(whole)["vision"], atol=1e-4)


def test_a_teacher_follows_its_media_to_their_device(tiny_multimodal_model: Any) -> None:
    teacher = EncoderTeacher(copy.deepcopy(tiny_multimodal_model))
    pixels = torch.zeros(1, 3, teacher.side, teacher.side, device="meta")
    found = teacher({"pixel_values": pixels})["vision"]
    inner = teacher.model.model
    assert found.device.type == inner.embed_vision.embedding.weight.device.type == "meta"
    assert inner.language_model.device.type == "cpu"  # never run, and large


def test_lengths_of_clips_are_where_their_embeddings_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(FeatureRegression, "forward", lambda *given: seen.append(given[-1]))
    soft = {"audio": torch.zeros(2, 5, 6, device="meta")}
    FeatureRegression(6, 10).losses(soft, soft, [5, 2])
    assert seen[0].device.type == "meta"


def test_what_is_no_teacher_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no encoders of a Gemma 3n"):
        EncoderTeacher.open(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gemma3n_text"}')
    with pytest.raises(CheckpointError, match=r"expected a config.json of model_type"):
        EncoderTeacher.open(tmp_path)
    with pytest.raises(ConfigError, match="no encoder of smell; there are vision, audio"):
        FeatureRegression(2, 2, ("smell",))
