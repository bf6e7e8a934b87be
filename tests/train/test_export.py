"""An exported model is the trained one, or it is not there."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import matryo
from helpers.recipes import TOKENIZER
from matryo.errors import TrainingError
from matryo.plan import presets
from matryo.train import export as module
from matryo.train.export import Probe, export, mean_divergence, torch_logits
from matryo.train.nested import nest

IDS = [2, 300, 0, 41, 540, 7, 99, 512, 13, 5, 8, 1]
ROWS = [Probe(IDS)]


@pytest.fixture(scope="module")
def trained(tiny_hf_model: Any) -> Any:
    model = copy.deepcopy(tiny_hf_model)
    config = nest(model)
    return model, {name: presets(config)[name] for name in ("e2b", "full")}


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_what_is_written_is_what_was_trained(trained: Any, tmp_path: Path, dtype: str) -> None:
    model, plans = trained
    made = export(
        model, plans, tmp_path, ROWS, start=None, tokenizer=TOKENIZER, dtype=dtype, packed=["f32"]
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f32", "hf"]
    assert [one.path.name for one in made] == ["hf", "f32"]
    if dtype == "f32":
        wanted = torch_logits(model, plans["e2b"], ROWS)
        for one in made:
            with matryo.load(one.path, weights="f32") as opened:
                assert abs(opened.logits(IDS, plans["e2b"]) - wanted).max() < 1e-3
    assert (tmp_path / "hf" / "tokenizer.json").exists()


def test_a_file_that_computes_something_else_is_refused(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plans = trained
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "older").touch()
    save_file = safetensors.torch.save_file

    def altered(tensors: dict[str, torch.Tensor], *rest: Any) -> None:
        tensors["model.layers.3.mlp.up_proj.weight"] = -tensors["model.layers.3.mlp.up_proj.weight"]
        save_file(tensors, *rest)

    monkeypatch.setattr(module, "save_file", altered)
    with pytest.raises(TrainingError, match=r"hf was not written: its plan .* diverges"):
        export(model, plans, tmp_path, ROWS, start=None, tokenizer=TOKENIZER, dtype="f32")
    assert [p.name for p in tmp_path.rglob("*")] == ["hf", "older"]


def test_an_engine_that_differs_is_refused(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plans = trained
    engine_logits = module.engine_logits

    def off(directory: Path, *rest: Any) -> Any:
        found = engine_logits(directory, *rest)
        found["e2b"] = found["e2b"] + 0.01
        return found

    monkeypatch.setattr(module, "engine_logits", off)
    with pytest.raises(TrainingError, match=r"logits differ by 0.01"):
        export(model, plans, tmp_path, ROWS, start=None, tokenizer=TOKENIZER, dtype="f32")
    assert list(tmp_path.iterdir()) == []


def test_divergence_is_of_distributions() -> None:
    first = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)
    assert mean_divergence(first, first + np.float32(5.0)) == pytest.approx(0.0, abs=1e-7)
    assert mean_divergence(first, -first) > 0.4


def test_what_passed_stays_where_a_packed_one_is_refused(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plans = trained
    monkeypatch.setattr(module, "KL_LIMIT", {**module.KL_LIMIT, "q8": 0.0})
    with pytest.raises(TrainingError, match=r"less than a step of q8: raise .*pack bf16") as told:
        export(model, plans, tmp_path, ROWS, start=None, tokenizer=TOKENIZER, packed=["q8"])
    assert "q8 was not written" in str(told.value) and "report" not in str(told.value)
    assert f"{tmp_path / 'hf'} is written" in str(told.value)
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]
    with matryo.load(tmp_path / "hf") as opened:
        assert opened.logits(IDS, plans["e2b"]).shape[0] == len(IDS)
