"""A slice is an ordinary checkpoint that transformers loads, and its plan bit for bit."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma3nForCausalLM

import matryo.checkpoint.slice as slicing
from helpers.files import contents, hub_config, stored, to_bf16, write_checkpoint, write_json
from helpers.random_weights import SMALL
from helpers.tiny import sliced_model
from matryo.checkpoint import writing
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.slice import slice_checkpoint
from matryo.errors import CheckpointError, PlanError
from matryo.plan import Plan, full_plan, presets

# For helpers/random_weights.py: SHAPE (15 layers, 5 owners), every kind of cut.
PLANS = {
    "e2b": None,
    "skip": Plan((*range(5), *range(10, 15)), (192,) * 10, 5),
    "mixed": Plan(tuple(range(15)), tuple(64 * (1 + layer % 3) for layer in range(15)), 5),
    "owners": Plan((1, 3, 4, 5, 7, 9, 11, 14), (192, 96, 32, 160, 192, 64, 128, 192), 5),
    "no readers": Plan((0, 1, 2, 3, 4), (96,) * 5, 5),
    "full": None,
}


def plan_of(source: HuggingFaceSource, name: str) -> Plan:
    return PLANS[name] or presets(source.config)[name]


@pytest.mark.parametrize(
    ("name", "shard_bytes"), [*((name, 1 << 40) for name in PLANS), ("mixed", 1 << 20)]
)
def test_transformers_loads_a_slice_as_the_model_of_the_plan(
    tiny_hf_model: Gemma3nForCausalLM,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    shard_bytes: int,
) -> None:
    monkeypatch.setattr(slicing, "SHARD_BYTES", shard_bytes)
    source = HuggingFaceSource(tiny_checkpoint)
    plan = plan_of(source, name)
    files = slice_checkpoint(source, plan, tmp_path / "new")
    assert (len(files) > 1) == (shard_bytes == 1 << 20)
    # Typed as if it always gave the model alone.
    both: Any = Gemma3nForCausalLM.from_pretrained(tmp_path / "new", output_loading_info=True)
    loaded, notes = both
    assert not any(notes.values())
    got, expected = (
        loaded.state_dict(),
        sliced_model(tiny_hf_model, plan.layers, plan.ffn_width).state_dict(),
    )
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[key], expected[key]) for key in got)


def test_a_slice_has_the_shape_and_the_sparsity_of_its_plan(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    source = HuggingFaceSource(tiny_checkpoint)
    plan = plan_of(source, "owners")
    slice_checkpoint(source, plan, tmp_path / "new")
    whole, cut = source.config, HuggingFaceSource(tmp_path / "new").config
    assert (cut.num_layers, cut.num_owners, cut.ffn_width) == (8, 3, plan.ffn_width)
    assert cut.window == tuple(whole.window[layer] for layer in plan.layers)
    assert cut.sparsity == tuple(whole.sparsity[layer] for layer in plan.layers)
    same_readers = [plan.layers.index(whole.kv_source[layer]) for layer in plan.layers]
    assert cut.kv_source == tuple(same_readers)


def test_bits_names_towers_and_text_files_stay_as_they_were(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    towers: dict[str, Any] = {
        "model.vision_tower.stem.weight": (
            "F32",
            rng.standard_normal((2, 3, 1, 1)).astype(np.float32),
        ),
        "model.vision_tower.bn.num_batches_tracked": ("I64", np.array(3)),
        "model.audio_tower.norm.weight": (
            "BF16",
            to_bf16(rng.standard_normal(9).astype(np.float32)),
        ),
    }
    config = {"model_type": "gemma3n", "vision_config": {"a": 1}, "text_config": hub_config()}
    weights = write_checkpoint(
        tmp_path / "whole",
        dtype="BF16",
        shards=2,
        prefix="model.language_model.",
        config=config,
        more=towers,
    )
    (tmp_path / "whole" / "tokenizer.json").write_text("{}", encoding="utf-8")
    source = HuggingFaceSource(tmp_path / "whole")
    plan = Plan((0, 1, 2, 4, 5), (64, 32, 128, 96, 32), 3)
    slice_checkpoint(source, plan, tmp_path / "new")
    cut = HuggingFaceSource(tmp_path / "new")
    assert set(cut.others) == set(towers)
    for name, (_, values) in towers.items():
        assert np.array_equal(cut.bits(name), values)
    down = stored(weights["layers.4.mlp.down_proj.weight"][:, :96], "BF16")[1]
    assert np.array_equal(cut.bits("model.language_model.layers.3.mlp.down_proj.weight"), down)
    dead = stored(weights["layers.5.self_attn.k_proj.weight"], "BF16")[
        1
    ]  # public checkpoints carry them
    assert np.array_equal(cut.bits("model.language_model.layers.4.self_attn.k_proj.weight"), dead)
    document = json.loads((tmp_path / "new" / "config.json").read_text())
    assert document["vision_config"] == {"a": 1}
    assert document["text_config"]["hidden_size"] == SMALL["hidden_size"]
    assert set(contents(tmp_path / "new")) == {"config.json", "model.safetensors", "tokenizer.json"}


def test_the_whole_as_a_slice_is_the_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "whole", dtype="F16")
    source = HuggingFaceSource(tmp_path / "whole")
    slice_checkpoint(source, full_plan(source.config), tmp_path / "new")
    cut = HuggingFaceSource(tmp_path / "new")
    assert cut.config == source.config
    assert all(
        np.array_equal(cut.bits(name), source.bits(name)) for name, _ in source.stored_names()
    )


def test_a_slice_of_a_slice_is_the_slice(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "whole")
    source = HuggingFaceSource(tmp_path / "whole")
    outer, inner = (
        Plan((0, 1, 2, 4, 6), (128, 96, 96, 64, 128), 3),
        Plan((1, 2, 6), (32, 64, 96), 3),
    )
    slice_checkpoint(source, outer, tmp_path / "outer")
    slice_checkpoint(source, inner, tmp_path / "inner")
    between = HuggingFaceSource(tmp_path / "outer")
    slice_checkpoint(between, Plan((1, 2, 4), (32, 64, 96), 3), tmp_path / "twice")
    one, other = (contents(tmp_path / name)["model.safetensors"] for name in ("inner", "twice"))
    assert one == other


@pytest.mark.parametrize("after", [0.05, 0.5, 0.95])
def test_an_interrupted_run_goes_on_and_nothing_loads_before_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    write_checkpoint(tmp_path / "whole")
    monkeypatch.setattr(slicing, "SHARD_BYTES", 500_000)
    monkeypatch.setattr(slicing, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(writing, "COMMIT_BYTES", 100_000)
    source = HuggingFaceSource(tmp_path / "whole")
    plan = Plan((0, 1, 2, 4, 6), (128, 96, 96, 64, 128), 3)
    slice_checkpoint(source, plan, tmp_path / "at once")

    def interrupt(done: int, total: int, name: str) -> None:
        if done > after * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        slice_checkpoint(source, plan, tmp_path / "new", progress=interrupt)
    with pytest.raises(CheckpointError, match="is unfinished"):
        HuggingFaceSource(tmp_path / "new")
    with pytest.raises(OSError, match="no file named"):  # nor does transformers load it
        Gemma3nForCausalLM.from_pretrained(tmp_path / "new", local_files_only=True)
    seen: list[tuple[int, int]] = []
    slice_checkpoint(
        source, plan, tmp_path / "new", progress=lambda d, t, name: seen.append((d, t))
    )
    assert contents(tmp_path / "new") == contents(tmp_path / "at once")
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]
    assert seen[0][0] >= after * seen[0][1] - 100_000


def test_what_cannot_be_cut_leaves_nothing(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "whole")
    source = HuggingFaceSource(tmp_path / "whole")
    with pytest.raises(PlanError, match="layer 1 cannot be skipped"):
        slice_checkpoint(source, Plan((0, 2, 3), (32, 32, 32), 3), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(CheckpointError, match="not empty"):
        slice_checkpoint(source, full_plan(source.config), tmp_path / "whole")
    huge = tmp_path / "whole" / "tokenizer.json"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: expected a file of at most"):
        slice_checkpoint(source, full_plan(source.config), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_links_into_a_cache_become_files(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "blobs")
    write_json(tmp_path / "blobs" / "tokenizer.json", {})
    (tmp_path / "snapshot").mkdir()
    for path in (tmp_path / "blobs").iterdir():
        os.symlink(path, tmp_path / "snapshot" / path.name)
    source = HuggingFaceSource(tmp_path / "snapshot")
    slice_checkpoint(source, full_plan(source.config), tmp_path / "new")
    del source
    shutil.rmtree(tmp_path / "blobs")
    assert not any(path.is_symlink() for path in (tmp_path / "new").iterdir())
    assert HuggingFaceSource(tmp_path / "new").read("norm.weight").shape == (64,)
