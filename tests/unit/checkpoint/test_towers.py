"""Encoders in files of their own: written, continued, checked, and not looked at without need."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import matryo
from helpers.files import contents, hub_config, stored, write_checkpoint, write_json, write_tensors
from helpers.towers import multimodal_config
from matryo.checkpoint import writing
from matryo.checkpoint.convert import convert
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.packed import PackedModel
from matryo.checkpoint.safetensors import SafetensorsFile
from matryo.checkpoint.tower_source import TowerSource
from matryo.checkpoint.towers import tower_tensors
from matryo.errors import CheckpointError, ConfigError, InputError

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def packed(multimodal_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted to q8. Read only."""
    target = tmp_path_factory.mktemp("towers") / "q8"
    convert(multimodal_checkpoint, target, "q8")
    return target


@pytest.fixture
def mine(packed: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(packed, tmp_path / "mine"))


def images(rng: np.random.Generator) -> list[Any]:
    return [rng.random((3, 64, 64), np.float32)]


def test_a_packed_model_sees_and_hears_what_one_in_memory_does(
    multimodal_checkpoint: Path, packed: Path, rng: np.random.Generator
) -> None:
    image, mel = images(rng), [rng.standard_normal((80, 128)).astype(np.float32)]
    ids = [2, 500, *[513] * 16, 512, 501, *[529] * 12, 528, 7]
    with matryo.load(packed) as mapped, matryo.load(multimodal_checkpoint, weights="q8") as own:
        one = mapped.logits(ids, images=image, audio=mel)
        assert np.array_equal(one, own.logits(ids, images=image, audio=mel))
        assert mapped.ledger().row("vision.safetensors").kind == "mapped"
        assert own.ledger().row("encoders").total_bytes > 500_000


def test_text_never_opens_their_files(
    packed: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    opened: list[str] = []
    original = SafetensorsFile.__init__

    def note(self: SafetensorsFile, path: Path) -> None:
        opened.append(path.name)
        original(self, path)

    monkeypatch.setattr(SafetensorsFile, "__init__", note)
    with matryo.load(packed) as model:
        model.logits([2, 5, 6])
        list(model.session().generate([2, 5], max_tokens=2))
        assert all(name.startswith("shell-") for name in opened)
        assert model.ledger().row("vision.safetensors").resident_bytes == 0
        model.vision.encode(images(rng)[0])
        assert opened[-1] == "vision.safetensors" and "audio.safetensors" not in opened
        model.vision.encode(images(rng)[0])
        assert opened.count("vision.safetensors") == 1


def test_their_files_are_in_the_manifest(packed: Path) -> None:
    model = PackedModel(packed)
    assert [entry.file for entry in model.manifest.towers] == [
        "vision.safetensors", "audio.safetensors",
    ]  # fmt: skip
    seen: list[str] = []
    model.verify(lambda done, total, name: seen.append(name))
    assert {"vision.safetensors", "audio.safetensors"} < set(seen)
    for tower in ("vision", "audio"):
        for name, array in model.tower_tensors(tower).items():
            assert array.flags.aligned, name


def test_a_text_model_has_the_manifest_it_always_had(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "text")
    convert(tmp_path / "text", tmp_path / "new", "q4")
    document = json.loads((tmp_path / "new" / "matryo.json").read_text())
    assert "towers" not in document and PackedModel(tmp_path / "new").towers == {}
    assert not (tmp_path / "new" / "vision.safetensors").exists()


def test_a_changed_byte_is_found(mine: Path) -> None:
    path = mine / "audio.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"audio\.safetensors: damaged"):
        PackedModel(mine).verify()


def test_another_file_in_its_place_is_refused(mine: Path) -> None:
    shutil.copy(mine / "audio.safetensors", mine / "vision.safetensors")
    with matryo.load(mine) as model:
        assert len(model.logits([2, 5])) == 2
        with pytest.raises(CheckpointError, match="size is not the manifest's"):
            model.logits([513] * 16, images=[np.zeros((3, 64, 64), np.float32)])


def test_a_file_that_was_taken_away_is_named(mine: Path, multimodal_checkpoint: Path) -> None:
    (mine / "vision.safetensors").unlink()
    with matryo.load(mine) as model:
        assert len(model.logits([2, 5])) == 2
        with pytest.raises(CheckpointError, match=r"vision\.safetensors: the encoder of pictures"):
            _ = model.vision
        assert model.audio.encode(np.zeros(9000, np.float32)).shape[1] == 64
        session = model.session()
        with pytest.raises(CheckpointError, match="is missing: put the file back"):
            session.generate(["a", np.zeros((9, 9, 3), np.uint8)])
    PackedModel(mine).verify()
    with pytest.raises(CheckpointError, match=r"vision\.safetensors: was taken away"):
        convert(multimodal_checkpoint, mine, "q8")


def test_an_interrupted_run_goes_on_inside_a_tower(
    multimodal_checkpoint: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "COMMIT_BYTES", 100_000)

    def stop(done: int, total: int, name: str) -> None:
        if name.startswith("stages.3"):
            raise KeyboardInterrupt

    target = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt):
        convert(multimodal_checkpoint, target, "q8", progress=stop)
    assert (target / "vision.safetensors.partial").exists()
    with pytest.raises(CheckpointError):
        matryo.load(target)
    seen: list[tuple[int, int]] = []
    convert(multimodal_checkpoint, target, "q8", progress=lambda *it: seen.append(it[:2]))
    assert seen[-1][0] == seen[-1][1] and seen == sorted(seen)
    assert contents(target) == contents(packed)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(towers=3),
        lambda m: m["towers"].append(m["towers"][0]),
        lambda m: m["towers"][0].update(name="taste"),
        lambda m: m["towers"][0].update(file="../vision.safetensors"),
        lambda m: m["towers"][0].update(file="shell-0.safetensors"),
        lambda m: m["towers"][0].pop("sha256"),
        lambda m: m["towers"][0].update(bytes="many"),
        lambda m: m["towers"].insert(0, []),
    ],
)
def test_a_broken_entry_is_refused(mine: Path, change: Change) -> None:
    document = json.loads((mine / "matryo.json").read_text())
    change(document)
    write_json(mine / "matryo.json", document)
    with pytest.raises(CheckpointError, match="not a manifest this version reads"):
        PackedModel(mine)


def test_identity_follows_the_encoders(mine: Path, packed: Path) -> None:
    document = json.loads((mine / "matryo.json").read_text())
    document["towers"][0]["sha256"] = "0" * 64
    write_json(mine / "matryo.json", document)
    assert PackedModel(mine).identity != PackedModel(packed).identity


@pytest.mark.parametrize("spelling", ["model.", ""])
def test_both_spellings_of_the_prefix_are_one(
    multimodal_checkpoint: Path, tmp_path: Path, spelling: str
) -> None:
    state = _state(multimodal_checkpoint)
    renamed = {
        name if "language_model" in name else spelling + name.removeprefix("model."): value
        for name, value in state.items()
    }
    source = _written(tmp_path, renamed)
    expected = HuggingFaceSource(multimodal_checkpoint)
    for part in ("vision", "audio", "embed_vision", "embed_audio"):
        assert TowerSource(source, part).shapes == TowerSource(expected, part).shapes
    names = {tower: [t.name for t in ts] for tower, ts in tower_tensors(source, "q4").items()}
    assert set(names) == {"vision", "audio"} and all(len(n) > 20 for n in names.values())


def test_a_tensor_under_both_spellings_is_refused(
    multimodal_checkpoint: Path, tmp_path: Path
) -> None:
    state = _state(multimodal_checkpoint)
    state["embed_audio.embedding.weight"] = state["model.embed_audio.embedding.weight"]
    with pytest.raises(CheckpointError, match="is also stored as"):
        TowerSource(_written(tmp_path, state), "embed_audio")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.embed_vision.embedding_projection.weight"), "tensor is missing"),
        (lambda s: _resize(s, "model.embed_audio.soft_embedding_norm.weight", (3,)), "wrong shape"),
        (lambda s: s.pop("model.embed_audio.embedding.weight"), "tensor is missing"),
        (lambda s: s.pop("model.vision_tower.timm_model.msfa.norm.weight"), "is missing|msfa"),
        (lambda s: s.pop("model.audio_tower.conformer.0.norm.weight"), "tensor is missing"),
        (lambda s: _resize(s, "model.audio_tower.surprise", (3,)), "unknown tensor"),
    ],
)
def test_an_incomplete_tower_is_refused(
    multimodal_checkpoint: Path, tmp_path: Path, change: Change, message: str
) -> None:
    state = _state(multimodal_checkpoint)
    change(state)
    source = _written(tmp_path, state)
    with pytest.raises(CheckpointError, match=message):
        tower_tensors(source, "q4")


def test_a_checkpoint_may_lack_an_encoder(
    multimodal_checkpoint: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Some fine-tuned releases leave the sound encoder out; its embedder stays."""
    state = {n: v for n, v in _state(multimodal_checkpoint).items() if "audio_tower" not in n}
    _written(tmp_path, state)
    with matryo.load(tmp_path, weights="f32") as model:
        assert model.logits([513] * 16, images=images(rng)).shape == (16, 544)
        with pytest.raises(InputError, match="no encoder of sound"):
            _ = model.audio


def test_a_config_that_does_not_describe_its_towers_is_an_error_where_they_are_packed(
    tmp_path: Path, multimodal_checkpoint: Path
) -> None:
    document = multimodal_config()
    document["vision_config"]["surprise"] = 1
    source = _written(tmp_path, _state(multimodal_checkpoint), document)
    with pytest.raises(ConfigError, match="surprise"):
        tower_tensors(source, "q4")


def test_towers_without_a_section_in_the_config_are_left_out(tmp_path: Path) -> None:
    more = {"model.vision_tower.x": stored(np.ones(3, np.float32), "F32")}
    config = {"model_type": "gemma3n", "text_config": hub_config()}
    write_checkpoint(tmp_path, config=config, prefix="model.language_model.", more=more)
    assert tower_tensors(HuggingFaceSource(tmp_path), "q4") == {}


def _state(directory: Path) -> dict[str, Any]:
    file = SafetensorsFile(directory / "model.safetensors")
    return {name: ("F32", file.array(name)) for name in file.tensors}


def _written(directory: Path, state: dict[str, Any], config: Any = None) -> HuggingFaceSource:
    write_tensors(directory / "model.safetensors", state, {"format": "pt"})
    write_json(directory / "config.json", config or multimodal_config())
    return HuggingFaceSource(directory)


def _resize(state: dict[str, Any], name: str, shape: tuple[int, ...]) -> None:
    state[name] = ("F32", np.ones(shape, np.float32))
