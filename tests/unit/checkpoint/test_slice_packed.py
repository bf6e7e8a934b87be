"""A slice of a packed directory is, byte for byte, the packed slice of the Hugging Face one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import matryo.checkpoint.slice as slicing
from helpers.files import contents, hub_config, write_checkpoint, write_json, write_tensors
from matryo.checkpoint import writing
from matryo.checkpoint.convert import convert
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.packed import PackedModel, hash_file, read_manifest
from matryo.checkpoint.safetensors import SafetensorsFile
from matryo.checkpoint.slice import slice_checkpoint
from matryo.checkpoint.slice_packed import slice_packed
from matryo.errors import CheckpointError, PlanError
from matryo.plan import Plan, full_plan, presets
from matryo.quantize import WEIGHTS

# For SMALL: 9 layers, the first 3 own K/V, 2 are sparse; three shells of widths 32, 64, 128.
PLANS = {
    "e2b": None,
    "full": None,
    "mixed": Plan((0, 1, 2, 4, 6), (128, 96, 32, 64, 96), 3),
    "owners": Plan((1, 2, 6), (32, 64, 96), 3),
    "narrow": Plan(tuple(range(9)), (32,) * 9, 3),
}


@pytest.fixture(scope="module")
def packed(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("packed") / "q4"
    convert(hub, directory, "q4")
    return directory


def plan_of(model: PackedModel, name: str) -> Plan:
    return PLANS[name] or presets(model.config)[name]


@pytest.mark.parametrize(
    ("weights", "name"),
    [*(("q4", name) for name in PLANS), *((kind, "mixed") for kind in WEIGHTS if kind != "q4")],
)
def test_the_bytes_are_those_of_the_packed_slice(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, name: str
) -> None:
    monkeypatch.setattr(slicing, "BLOCK_BYTES", 7_000)  # several blocks a tensor
    convert(hub, tmp_path / "packed", weights)
    model = PackedModel(tmp_path / "packed")
    plan = plan_of(model, name)
    files = slice_packed(model, plan, tmp_path / "new")
    slice_checkpoint(HuggingFaceSource(hub), plan, tmp_path / "hf slice")
    convert(tmp_path / "hf slice", tmp_path / "expected", weights)
    new, expected = contents(tmp_path / "new"), contents(tmp_path / "expected")
    assert new.keys() == expected.keys()
    assert {path.name for path in files} == {name for name in new if name.startswith("shell-")}
    manifests = [json.loads(each.pop("matryo.json")) for each in (new, expected)]
    assert new == expected
    assert {**manifests[0], "source": None} == {**manifests[1], "source": None}
    PackedModel(tmp_path / "new").verify()


def test_a_slice_of_a_slice_is_the_slice(packed: Path, tmp_path: Path) -> None:
    outer, inner = PLANS["mixed"], PLANS["owners"]
    assert outer is not None and inner is not None
    inner = Plan(inner.layers, (32, 32, 96), 3)
    slice_packed(PackedModel(packed), outer, tmp_path / "outer")
    slice_packed(PackedModel(packed), inner, tmp_path / "inner")
    slice_packed(
        PackedModel(tmp_path / "outer"), Plan((1, 2, 4), (32, 32, 96), 3), tmp_path / "twice"
    )
    one, other = contents(tmp_path / "inner"), contents(tmp_path / "twice")
    del one["matryo.json"], other["matryo.json"]
    assert one == other


def test_towers_and_multimodal_rows_come_along(
    packed: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    """The file of an encoder is copied as it is, whatever it holds."""
    source = Path(shutil.copytree(packed, tmp_path / "source"))
    tower = {
        "count": ("I64", np.array(3)),
        "embedder.norm": ("F32", rng.standard_normal(9).astype(np.float32)),
        "stem": ("U8", rng.integers(0, 255, (40, 7), np.uint8)),
    }
    metadata = {
        "format": "matryo-packed", "format_version": "1", "shell": "audio", "weights": "q4",
    }  # fmt: skip
    write_tensors(source / "audio.safetensors", tower, metadata)
    document: dict[str, Any] = json.loads((source / "matryo.json").read_text())
    document["towers"] = [_entry(source / "audio.safetensors", "audio")]
    rows = rng.standard_normal((32, 64)).astype(np.float32)
    inner = source / document["shells"][0]["file"]
    write_tensors(inner, {**_stored(inner), "multimodal": ("F32", rows)})
    document["shells"][0].update(_entry(inner, document["shells"][0]["name"]))
    write_json(source / "matryo.json", document)
    slice_packed(PackedModel(source), plan_of(PackedModel(source), "mixed"), tmp_path / "new")
    new = PackedModel(tmp_path / "new")
    new.verify()
    assert np.array_equal(new.tensors()["multimodal"], rows)
    found = new.tower_tensors("audio")
    assert all(np.array_equal(found[name], values) for name, (_, values) in tower.items())
    (source / "audio.safetensors").unlink()
    slice_packed(PackedModel(source), plan_of(PackedModel(source), "mixed"), tmp_path / "text")
    assert not PackedModel(tmp_path / "text").towers


def _stored(path: Path) -> dict[str, tuple[str, Any]]:
    file = SafetensorsFile(path)
    return {name: (file.info(name).dtype, np.array(file.array(name))) for name in file.tensors}


def _entry(path: Path, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": hash_file(path),
        "header_sha256": SafetensorsFile(path).header_sha256,
    }


@pytest.mark.parametrize("after", [0.05, 0.5, 0.95])
def test_an_interrupted_run_goes_on_and_nothing_loads_before_it_is_done(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    monkeypatch.setattr(slicing, "BLOCK_BYTES", 5_000)
    monkeypatch.setattr(writing, "COMMIT_BYTES", 20_000)
    model = PackedModel(packed)
    plan = plan_of(model, "mixed")
    slice_packed(model, plan, tmp_path / "at once")

    def interrupt(done: int, total: int, name: str) -> None:
        if done > after * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        slice_packed(model, plan, tmp_path / "new", progress=interrupt)
    with pytest.raises(CheckpointError):
        PackedModel(tmp_path / "new")
    seen: list[tuple[int, int]] = []
    slice_packed(model, plan, tmp_path / "new", progress=lambda d, t, name: seen.append((d, t)))
    assert contents(tmp_path / "new") == contents(tmp_path / "at once")
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]
    assert seen[0][0] >= after * seen[0][1] - 30_000


def test_what_cannot_be_cut_leaves_nothing(packed: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(packed, tmp_path / "source"))
    model = PackedModel(source)
    with pytest.raises(PlanError, match="layer 1 cannot be skipped"):
        slice_packed(model, Plan((0, 2, 3), (32, 32, 32), 3), tmp_path / "new")
    with pytest.raises(CheckpointError, match="not empty"):
        slice_packed(model, full_plan(model.config), source)
    (source / "shell-2.safetensors").unlink()
    with pytest.raises(PlanError, match=r"does not hold all of the plan: shell-2\.safetensors"):
        slice_packed(PackedModel(source), full_plan(model.config), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    slice_packed(PackedModel(source), Plan((0, 1, 2), (64,) * 3, 3), tmp_path / "inner")
    assert read_manifest(tmp_path / "inner").shells


@pytest.mark.parametrize("name", ["layers.0.ffn.0.down", "layers.4.ffn.1.down", "ple.0", "embed"])
def test_a_tensor_that_is_not_what_it_should_be_is_named(
    packed: Path, tmp_path: Path, name: str
) -> None:
    source = Path(shutil.copytree(packed, tmp_path / "source"))
    document: dict[str, Any] = json.loads((source / "matryo.json").read_text())
    for shell in document["shells"]:
        tensors = _stored(source / shell["file"])
        if name in tensors:
            dtype, values = tensors.pop(name)
            if name != "embed":
                tensors[name] = (dtype, values[:, :-1])
            write_tensors(source / shell["file"], tensors)
            shell.update(_entry(source / shell["file"], shell["name"]))
    write_json(source / "matryo.json", document)
    model = PackedModel(source)
    with pytest.raises(CheckpointError, match=rf": {name}: (has the wrong|no such)"):
        slice_packed(model, plan_of(model, "mixed"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_per_layer_embeddings_that_share_groups_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "hf", config=hub_config(hidden_size_per_layer_input=16), plans=None)
    plan = Plan((0, 1, 2, 4, 6), (64,) * 5, 3)
    convert(tmp_path / "hf", tmp_path / "q8", "q8")
    with pytest.raises(CheckpointError, match="share their groups of 32"):
        slice_packed(PackedModel(tmp_path / "q8"), plan, tmp_path / "new")
    convert(tmp_path / "hf", tmp_path / "bf16", "bf16")
    slice_packed(PackedModel(tmp_path / "bf16"), plan, tmp_path / "new")
    slice_checkpoint(HuggingFaceSource(tmp_path / "hf"), plan, tmp_path / "hf slice")
    convert(tmp_path / "hf slice", tmp_path / "expected", "bf16")
    one, other = contents(tmp_path / "new"), contents(tmp_path / "expected")
    assert one["shell-0.safetensors"] == other["shell-0.safetensors"]
