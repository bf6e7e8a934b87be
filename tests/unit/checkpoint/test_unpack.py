"""What `matryo unpack` writes is the model that was packed: the same numbers, for the engine, for
transformers and to be packed again.
"""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import matryo
from helpers.files import contents
from matryo.checkpoint.convert import convert
from matryo.checkpoint.packed import PackedModel
from matryo.checkpoint.safetensors import SafetensorsFile
from matryo.checkpoint.slice import CutTensor
from matryo.checkpoint.unpack import WEIGHTS_FILE, unpack_checkpoint
from matryo.errors import CheckpointError
from matryo.loading.home import find_directory


def shells(directory: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(directory).items() if name.startswith("shell-")}


@pytest.mark.parametrize("weights", ["f32", "bf16", "q8"])
def test_packing_again_gives_the_same_shells(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    monkeypatch.setattr("matryo.checkpoint.slice.BLOCK_BYTES", 7_000)  # several blocks a tensor
    convert(hub, tmp_path / "packed", weights)
    unpack_checkpoint(PackedModel(tmp_path / "packed"), tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "again", weights)
    assert shells(tmp_path / "again") == shells(tmp_path / "packed")
    assert len(shells(tmp_path / "again")) == 3


def test_what_was_not_rounded_is_the_checkpoint(hub: Path, tmp_path: Path) -> None:
    convert(hub, tmp_path / "packed", "bf16")
    unpack_checkpoint(PackedModel(tmp_path / "packed"), tmp_path / "hf")
    before, after = (SafetensorsFile(d / WEIGHTS_FILE) for d in (hub, tmp_path / "hf"))
    # Of K/V that nothing reads there is nothing to give back.
    unread = {n for n in before.tensors for i in range(3, 9) if f"layers.{i}.self_attn.k" in n}
    unread |= {n for n in before.tensors for i in range(3, 9) if f"layers.{i}.self_attn.v" in n}
    assert before.tensors.keys() - unread == after.tensors.keys()
    for name in after.tensors:
        wanted = (np.asarray(before.array(name)).astype(np.uint32) << 16).view(np.float32)
        assert np.array_equal(after.array(name), wanted), name
    names = {"config.json", "tokenizer.json"}
    assert {n: contents(hub)[n] for n in names} == {n: contents(tmp_path / "hf")[n] for n in names}


def test_four_bits_keep_their_logits(hub: Path, tmp_path: Path) -> None:
    """Rounding what was rounded moves little: nothing is rounded into another group or column."""
    convert(hub, tmp_path / "q4", "q4")
    unpack_checkpoint(PackedModel(tmp_path / "q4"), tmp_path / "hf")
    with (
        matryo.load(hub, weights="f32") as exact,
        matryo.load(tmp_path / "hf", weights="f32") as floats,
        matryo.load(tmp_path / "q4") as packed,
    ):
        ids = [2, 5, 9, 31, 8]
        wanted, got, rounded = (m.logits(ids) for m in (exact, floats, packed))
    assert np.abs(got - rounded).mean() < 0.2 * np.abs(rounded - wanted).mean()


@pytest.mark.parametrize(("weights", "tolerance"), [("f32", 2e-4), ("bf16", 2e-2)])
def test_pictures_and_sounds_mean_the_same(
    multimodal_checkpoint: Path,
    tmp_path: Path,
    rng: np.random.Generator,
    weights: str,
    tolerance: float,
) -> None:
    """The ids around media too, whose rows are solved for."""
    convert(multimodal_checkpoint, tmp_path / "packed", weights)
    unpack_checkpoint(PackedModel(tmp_path / "packed"), tmp_path / "hf")
    image = [rng.random((3, 64, 64), np.float32)]
    mel = [rng.standard_normal((80, 128)).astype(np.float32)]
    ids = [2, 500, *[513] * 16, 512, 501, *[529] * 12, 528, 7]
    with (
        matryo.load(tmp_path / "packed") as packed,
        matryo.load(tmp_path / "hf", weights="f32") as floats,
    ):
        wanted, got = (m.logits(ids, images=image, audio=mel) for m in (packed, floats))
    assert np.abs(wanted).max() > 1
    assert np.abs(got - wanted).max() < tolerance * np.abs(wanted).max()


def test_transformers_finds_every_tensor(multimodal_checkpoint: Path, tmp_path: Path) -> None:
    convert(multimodal_checkpoint, tmp_path / "packed", "q8")
    unpack_checkpoint(PackedModel(tmp_path / "packed"), tmp_path / "hf")
    before, after = (
        SafetensorsFile(d / WEIGHTS_FILE).tensors for d in (multimodal_checkpoint, tmp_path / "hf")
    )
    assert {n: t.shape for n, t in after.items()} == {n: t.shape for n, t in before.items()}


def test_the_embedded_model_is_packed_as_it_was(tmp_path: Path) -> None:
    source = PackedModel(find_directory(None))
    unpack_checkpoint(source, tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "again", "q8")
    again = PackedModel(tmp_path / "again").tensors()
    for name, array in source.tensors().items():
        if name == "multimodal":  # an encoder of 128 does not reach all rows of 256 exactly
            assert np.abs(again[name] - array).max() < 0.05
        else:
            assert np.array_equal(again[name], array), name


def test_an_interrupted_run_goes_on_and_nothing_loads_before_it_is_done(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matryo.checkpoint.writing.COMMIT_BYTES", 100_000)
    convert(hub, tmp_path / "packed", "q8")
    source = PackedModel(tmp_path / "packed")

    def stop(done: int, total: int, name: str) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack_checkpoint(source, tmp_path / "hf", progress=stop)
    assert (tmp_path / "hf" / f"{WEIGHTS_FILE}.partial").stat().st_size > 100_000
    with pytest.raises(CheckpointError):
        matryo.load(tmp_path / "hf")
    unpack_checkpoint(source, tmp_path / "hf")
    unpack_checkpoint(source, tmp_path / "whole")
    assert contents(tmp_path / "hf") == contents(tmp_path / "whole")


def test_a_missing_file_and_a_full_directory_are_named(
    multimodal_checkpoint: Path, tmp_path: Path
) -> None:
    convert(multimodal_checkpoint, tmp_path / "packed", "q8")
    for file in ("audio.safetensors", "shell-1.safetensors"):
        mine = Path(shutil.copytree(tmp_path / "packed", tmp_path / file))
        (mine / file).unlink()
        with pytest.raises(CheckpointError, match=rf"{file.replace('.', chr(92) + '.')}.*missing"):
            unpack_checkpoint(PackedModel(mine), tmp_path / "new")
        assert not (tmp_path / "new").exists()
    with pytest.raises(CheckpointError, match="not empty"):
        unpack_checkpoint(PackedModel(tmp_path / "packed"), tmp_path / "packed")


@pytest.mark.parametrize("file", ["shell-1.safetensors", "audio.safetensors"])
def test_one_flipped_bit_is_refused_and_nothing_is_written(
    multimodal_checkpoint: Path, tmp_path: Path, file: str
) -> None:
    convert(multimodal_checkpoint, tmp_path / "packed", "q8")
    data = bytearray((tmp_path / "packed" / file).read_bytes())
    data[-100] ^= 1
    (tmp_path / "packed" / file).write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{re.escape(file)}: damaged: convert or copy"):
        unpack_checkpoint(PackedModel(tmp_path / "packed"), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_progress_goes_once_from_reading_to_the_last_byte(hub: Path, tmp_path: Path) -> None:
    convert(hub, tmp_path / "packed", "q8")
    told: list[tuple[int, int]] = []
    unpack_checkpoint(
        PackedModel(tmp_path / "packed"), tmp_path / "hf",
        progress=lambda done, total, what: told.append((done, total)),
    )  # fmt: skip
    assert told == sorted(told) and told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) == 1


def test_blocks_are_the_whole(hub: Path, tmp_path: Path) -> None:
    """Any rows can be asked for: none is a panel's first by need."""
    from matryo.checkpoint.unpack import dense_tensors

    convert(hub, tmp_path / "packed", "q8")
    tensors: list[CutTensor] = dense_tensors(PackedModel(tmp_path / "packed"))
    for tensor in tensors:
        rows = tensor.shape[0]
        whole: Any = tensor.read(0, rows)
        cuts = sorted({0, 1, rows // 3, rows // 2 + 1, rows} & set(range(rows + 1)))
        parts = [tensor.read(a, b) for a, b in itertools.pairwise(cuts)]
        assert np.array_equal(np.concatenate(parts), whole), tensor.name
