"""Fine-tuning from a checkpoint: adapters, teachers, and what became of every rung."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import matryo
from helpers.dense import dense_directory
from helpers.recipes import VOCABULARY, sentences, write_recipe
from matryo.errors import CheckpointError, ConfigError
from matryo.train.journal import read
from matryo.train.loop import Report, main
from matryo.train.recipe import Recipe

IDS = [2, 105, 9, 4, 300]


def quiet(message: str) -> None:
    """Nobody reads along."""


def run(path: Path, *settings: str) -> Report:
    return main(Recipe.from_file(path, settings), say=quiet)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained checkpoint in float32."""
    directory = tmp_path_factory.mktemp("base")
    run(write_recipe(directory, schedule__steps=8, optimizer__rate=0.02, export__dtype="f32"))
    return directory / "out" / "hf"


def tuned(directory: Path, base: Path, **changes: Any) -> Path:
    """A recipe that starts from `base`, on other texts."""
    path = write_recipe(directory, **changes)
    rows = [json.dumps({"text": sentences(seed, 6).upper()}) for seed in range(40)]
    (directory / "texts.jsonl").write_text("\n".join(rows) + "\n")
    document = json.loads(path.read_text())
    document["model"] = {"start": str(base)}
    document["export"] = {"dtype": "f32"} | document.get("export", {})
    path.write_text(json.dumps(document))
    return path


def curve(output: Path) -> list[Any]:
    return [(r["step"], r["losses"], r.get("divergences")) for r in read(output) if "losses" in r]


def test_an_adapter_is_trained_resumed_kept_and_merged(base: Path, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    options: dict[str, Any] = {
        "adapter": {"rank": 2, "alpha": 8.0},
        "optimizer__rate": 0.02,
        "schedule": {"steps": 6, "warmup": 0, "decay": 0.0},
        "export": {"packed": ["q8"]},
    }
    whole, torn = (tuned(tmp_path / name, base, **options) for name in "ab")
    report = run(whole)
    assert [one.path.name for one in report.exported] == ["hf", "q8"]
    run(torn, "schedule.steps=3")
    state = torch.load(tmp_path / "b/out/checkpoints/step-00000003.pt", weights_only=True)
    assert all(".lora_" in name for name in state["weights"])
    run(torn)
    assert curve(tmp_path / "b/out") == curve(tmp_path / "a/out")
    for file in ("adapter/adapter_model.safetensors", "hf/model.safetensors"):
        ours, theirs = (load_file(tmp_path / name / "out" / file) for name in "ab")
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    # The merged model is the base and the products.
    before = load_file(base / "model.safetensors")
    after = load_file(tmp_path / "a/out/hf/model.safetensors")
    factors = load_file(tmp_path / "a/out/adapter/adapter_model.safetensors")
    name = "model.layers.1.mlp.up_proj"
    a, b = (factors[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    wanted = before[f"{name}.weight"] + 4.0 * b @ a
    assert torch.allclose(after[f"{name}.weight"], wanted, atol=1e-6)
    assert not torch.allclose(after[f"{name}.weight"], before[f"{name}.weight"], atol=1e-4)
    same = [key for key in before if torch.equal(before[key], after[key])]
    assert "model.embed_tokens.weight" in same and f"{name}.weight" not in same


def test_dropout_is_that_of_a_run_that_did_not_stop(base: Path, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    options: dict[str, Any] = {
        "adapter": {"rank": 2, "dropout": 0.5, "merge": False},
        "optimizer__rate": 0.02,
        "schedule": {"steps": 4, "warmup": 0, "decay": 0.0},
    }
    whole, torn = (tuned(tmp_path / name, base, **options) for name in "ab")
    run(whole)
    run(torn, "schedule.steps=2")
    run(torn)
    assert curve(tmp_path / "b/out") == curve(tmp_path / "a/out")
    ours, theirs = (
        load_file(tmp_path / name / "out/adapter/adapter_model.safetensors") for name in "ab"
    )
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    (tmp_path / "c").mkdir()
    run(tuned(tmp_path / "c", base, **{**options, "adapter": {"rank": 2, "merge": False}}))
    assert curve(tmp_path / "c/out") != curve(tmp_path / "a/out")  # it drops something


def test_an_adapter_may_be_all_that_is_written(base: Path, tmp_path: Path) -> None:
    path = tuned(tmp_path, base, adapter={"rank": 2, "merge": False}, schedule={"steps": 2})
    assert run(path).exported == []
    assert (tmp_path / "out/adapter/adapter_config.json").exists()
    assert not (tmp_path / "out/hf").exists()


def test_every_rung_is_compared_with_what_it_was(base: Path, tmp_path: Path) -> None:
    path = tuned(
        tmp_path, base,
        data__held_out=["held-out.txt"], data__held_out_rows=4,
        objective={"mode": "sum", "rungs": {"small": 0.0, "large": 1.0}},
        optimizer__rate=0.05, schedule={"steps": 8, "warmup": 0},
    )  # fmt: skip
    said: list[str] = []
    main(Recipe.from_file(path), say=said.append)
    records = [r for r in read(tmp_path / "out") if "held_out" in r]
    assert [r["step"] for r in records] == [0, 8]
    before, after = (r["held_out"]["small"]["loss"] for r in records)
    assert after > before  # capitals are not what is held out
    assert any(line.startswith(f"small        {before:.4f} -> {after:.4f} nats") for line in said)
    assert any(line.startswith("warning: small got worse") for line in said)
    # Again, as after a kill during the export: the same table, though no step is left.
    again: list[str] = []
    main(Recipe.from_file(path), say=again.append)
    assert [s for s in said if " -> " in s] == [s for s in again if " -> " in s]
    # Of other texts there is nothing to compare with.
    (tmp_path / "held-out.txt").write_text(sentences(2000, 12))
    main(Recipe.from_file(path), say=again.append)
    assert again[-2].startswith("before and after are not compared: data.held_out has changed")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another architecture, the same tokenizer."""
    return dense_directory(tmp_path_factory.mktemp("teacher"), "qwen3")


def test_a_file_of_all_ids_trains_as_the_teacher_does(
    base: Path, teacher: Path, tmp_path: Path
) -> None:
    found = []
    for name, top in (("a", 0), ("b", VOCABULARY)):
        (tmp_path / name).mkdir()
        path = tuned(
            tmp_path / name, base, schedule={"steps": 3, "warmup": 0}, optimizer__rate=0.01,
            teacher={"model": str(teacher), "top": top, "cross_entropy": 0.5, "divergence": 1.0},
            objective={"mode": "sum"}, export={"packed": []},
        )  # fmt: skip
        (tmp_path / name / "texts.jsonl").write_text(json.dumps({"text": sentences(1, 12)}))
        run(path)
        found.append(curve(tmp_path / name / "out"))
    for online, cached in zip(*found, strict=True):
        for part in (1, 2):
            assert set(online[part]) == {"small", "large"}
            assert cached[part] == pytest.approx(online[part], rel=2e-3)
    assert found[0][-1][2]["large"] < found[0][0][2]["large"]


def test_the_widest_teaches_the_narrower_and_the_other_model_the_widest(
    base: Path, teacher: Path, tmp_path: Path
) -> None:
    path = tuned(
        tmp_path, base, schedule={"steps": 1},
        objective={"mode": "sum", "divergence": 0.5}, teacher={"model": str(teacher)},
    )  # fmt: skip
    run(path)
    (record,) = [r for r in read(tmp_path / "out") if "losses" in r]
    assert record["divergences"]["large"] > 5 * record["divergences"]["small"] > 0
    assert set(record["distances"]) == {"small"}


def test_what_cannot_be_used_is_said(base: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a model from scratch has nothing to adapt"):
        Recipe.from_file(write_recipe(tmp_path, adapter={"rank": 2}))
    with pytest.raises(ConfigError, match="give a model, encoders or both"):
        Recipe.from_file(write_recipe(tmp_path, teacher={"top": 4}))
    with pytest.raises(ConfigError, match=r"teacher.temperature must be 1"):
        Recipe.from_file(
            write_recipe(tmp_path, teacher={"model": "x", "top": 4, "temperature": 2.0})
        )
    with pytest.raises(ConfigError, match=r"teacher.top is 9000; there are 8196 ids"):
        run(tuned(tmp_path, base, teacher={"model": str(teacher), "top": 9000}))
    (tmp_path / "next").mkdir()
    with pytest.raises(CheckpointError, match="holds no Hugging Face checkpoint"):
        run(tuned(tmp_path / "next", base, teacher={"model": "nowhere"}))
    (tmp_path / "third").mkdir()
    with pytest.raises(ConfigError, match=r"teacher.encoders: this model has no encoders"):
        run(tuned(tmp_path / "third", base, teacher={"encoders": str(base)}))


def test_a_merged_model_runs_at_every_size(base: Path, tmp_path: Path) -> None:
    path = tuned(tmp_path, base, adapter={"rank": 2}, schedule={"steps": 2}, optimizer__rate=0.05)
    run(path)
    with (
        matryo.load(base, weights="f32") as before,
        matryo.load(tmp_path / "out/hf", weights="f32") as after,
    ):
        assert list(after.plans) == list(before.plans)
        for size in ("small", "large"):
            first, second = before.logits(IDS, size), after.logits(IDS, size)
            assert not np.allclose(first, second, atol=1e-3)
