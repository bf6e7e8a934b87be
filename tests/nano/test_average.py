"""The mean of checkpoints: of all their tensors, by their shares, or of none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scripts.nano.average import WEIGHTS, average


def checkpoint(path: Path, value: float, shape: tuple[int, ...] = (2, 3)) -> Path:
    path.mkdir()
    save_file({"a": torch.full(shape, value, dtype=torch.bfloat16)}, path / WEIGHTS)
    (path / "config.json").write_text(f'{{"value": {value}}}')
    return path


def test_tensors_count_by_their_shares(tmp_path: Path) -> None:
    one, two = checkpoint(tmp_path / "one", 1.0), checkpoint(tmp_path / "two", 3.0)
    average({one: 0.25, two: 0.75}, tmp_path / "mean")
    (mean,) = load_file(tmp_path / "mean" / WEIGHTS).values()
    assert mean.dtype == torch.bfloat16 and torch.equal(mean, torch.full_like(mean, 2.5))
    assert (tmp_path / "mean/config.json").read_text() == (one / "config.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mean", "one", "two"]


def test_what_has_no_mean_is_refused(tmp_path: Path) -> None:
    one, two = checkpoint(tmp_path / "one", 1.0), checkpoint(tmp_path / "two", 3.0)
    other = checkpoint(tmp_path / "other", 3.0, (3, 2))
    for shares in ({one: 0.5, two: 0.4}, {one: 1.5, two: -0.5}):
        with pytest.raises(ValueError, match="shares"):
            average(shares, tmp_path / "mean")
    with pytest.raises(ValueError, match="other"):
        average({one: 0.5, other: 0.5}, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
    with pytest.raises(FileExistsError):
        average({one: 0.5, two: 0.5}, two)
