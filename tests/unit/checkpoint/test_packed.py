"""A packed directory opens if and only if every file is the one that its manifest describes."""

from __future__ import annotations

import json
import mmap
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.files import hub_config, write_checkpoint, write_json, write_tensors
from matryo.checkpoint.convert import convert
from matryo.checkpoint.packed import Manifest, PackedModel, is_packed, read_manifest
from matryo.elastic.ledger import read_ledger
from matryo.errors import CheckpointError

Document = dict[str, Any]
Change = Callable[[Document], object]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("original")
    write_checkpoint(directory / "hf")
    convert(directory / "hf", directory / "packed", "q4")
    return directory / "packed"


@pytest.fixture
def packed(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(original, tmp_path / "packed"))


def test_three_shells_open_and_hold_everything(original: Path) -> None:
    assert is_packed(original)
    model = PackedModel(original)
    assert [entry.name for entry in model.entries] == ["narrow", "middle", "e4b"]
    assert [set(shell.ffn_width) for shell in model.shells] == [{32}, {64}, {128}]
    tensors = model.tensors()
    assert {"embed", "ple.0", "layers.6.ffn.2.gate"} <= tensors.keys()
    assert not any(array.flags.writeable for array in tensors.values())
    model.verify()


@pytest.mark.skipif(sys.platform != "linux", reason="smaps is Linux's")
def test_a_forgotten_tensor_leaves_memory_and_stays_readable(tmp_path: Path) -> None:
    config = hub_config(vocab_size=8192, vocab_size_per_layer_input=8192)
    write_checkpoint(tmp_path / "hf", config=config)
    convert(tmp_path / "hf", tmp_path / "packed", "f32")
    model = PackedModel(tmp_path / "packed")
    table = model.tensors()["ple.0"]
    assert table.nbytes > 1 << 20
    before = table.sum()
    files = [file.path for file in model.files]
    resident = read_ledger(files, {}, {}).row(files[0].name).resident_bytes
    model.forget("ple.0")
    after = read_ledger(files, {}, {}).row(files[0].name).resident_bytes
    assert resident - after > table.nbytes - 4 * mmap.PAGESIZE
    assert table.sum() == before


def test_outer_shells_may_be_taken_away_and_inner_ones_may_not(packed: Path) -> None:
    (packed / "shell-2.safetensors").rename(packed / "away")
    model = PackedModel(packed)
    assert [entry.name for entry in model.entries] == ["narrow", "middle"]
    assert [entry.file for entry in model.missing] == ["shell-2.safetensors"]
    model.verify()
    (packed / "away").rename(packed / "shell-2.safetensors")
    (packed / "shell-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shell-1\.safetensors: an inner shell is missing"):
        PackedModel(packed)
    (packed / "shell-0.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shell-0\.safetensors: the first shell is missing"):
        PackedModel(packed)


def test_verify_reports_every_byte_and_finds_one_that_changed(packed: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    PackedModel(packed).verify(lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1] == sum(path.stat().st_size for path in packed.glob("shell-*"))
    path = packed / "shell-1.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"shell-1\.safetensors: damaged"):
        PackedModel(packed).verify()


def test_another_file_in_the_place_of_a_shell_is_refused(packed: Path) -> None:
    shell = packed / "shell-1.safetensors"
    data = bytearray(shell.read_bytes())
    shell.write_bytes(data + b"\0")
    with pytest.raises(CheckpointError, match=r"shell-1\.safetensors"):
        PackedModel(packed)
    at = data.index(b'"layers.')
    data[at + 8] = ord("9")  # the header says other layers now; the size is the same
    shell.write_bytes(data)
    with pytest.raises(CheckpointError, match="header is not the manifest's"):
        PackedModel(packed)


def test_the_identity_follows_weights_and_config(original: Path, packed: Path) -> None:
    before = PackedModel(packed).identity
    assert PackedModel(original).identity == before
    config = json.loads((packed / "config.json").read_text())
    write_json(packed / "config.json", {**config, "rms_norm_eps": 1e-5})
    assert PackedModel(packed).identity != before


def _shell(index: int, **values: object) -> Change:
    return lambda document: document["shells"][index].update(values)


BROKEN: dict[str, tuple[Change, str]] = {
    "unknown key": (lambda d: d.update(more=1), "key 'more' is unknown"),
    "missing key": (lambda d: d.pop("group"), "key 'group' is missing"),
    "unknown key of a shell": (_shell(0, more=1), "key 'more' is unknown"),
    "missing key of a shell": (lambda d: d["shells"][0].pop("sha256"), "key 'sha256' is missing"),
    "other format": (lambda d: d.update(format="x"), "format 'x'"),
    "later version": (lambda d: d.update(format_version=2), "version 2"),
    "version is a bool": (lambda d: d.update(format_version=True), "format_version is True"),
    "other group": (lambda d: d.update(group=64), "in groups of 64"),
    "unknown weights": (lambda d: d.update(weights="q2"), "weights 'q2'"),
    "no shells": (lambda d: d.update(shells=[]), "no shells"),
    "shells are an object": (lambda d: d.update(shells={}), "shells is"),
    "a shell is a list": (lambda d: d.update(shells=[[]]), "expected an object"),
    "size is a text": (_shell(0, bytes="9"), "bytes is '9'"),
    "file outside": (_shell(0, file="../shell-0.safetensors"), "without a directory"),
    "file absolute": (_shell(0, file="/etc/x.safetensors"), "without a directory"),
    "file of another kind": (_shell(0, file="shell-0.bin"), "without a directory"),
    "one file twice": (_shell(1, file="shell-0.safetensors"), "two shells have one file"),
    "plan is illegal": (_shell(0, plan={"layers": [1, 0]}), "plan of shell 'narrow'"),
    "plan of numbers": (_shell(0, plan={"layers": 3}), "plan of shell 'narrow'"),
    "plans do not nest": (_shell(1, plan={"layers": [0, 1, 2]}), "does not contain shell 'narrow'"),
    "deep": (lambda d: d.update(source=_deep()), "not a manifest"),
}  # fmt: skip


def _deep() -> Any:
    value: Any = 1
    for _ in range(300):
        value = [value]
    return value


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_manifest_is_refused(packed: Path, case: str) -> None:
    change, message = BROKEN[case]
    document = json.loads((packed / "matryo.json").read_text())
    change(document)
    write_json(packed / "matryo.json", document)
    with pytest.raises(CheckpointError, match=message) as caught:
        PackedModel(packed)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"[" * 200_000, b"\xff\xfe"])
def test_a_manifest_that_is_none_is_refused(packed: Path, text: bytes) -> None:
    (packed / "matryo.json").write_bytes(text)
    with pytest.raises(CheckpointError, match="not a manifest"):
        PackedModel(packed)


def test_a_manifest_is_what_it_was_written_from(original: Path, packed: Path) -> None:
    manifest = read_manifest(original)
    assert isinstance(manifest, Manifest)
    (packed / "matryo.json").write_text(manifest.to_json(), encoding="utf-8")
    assert read_manifest(packed) == manifest


def test_a_tensor_in_two_shells_and_one_off_its_alignment_are_refused(packed: Path) -> None:
    def replace(index: int, tensors: dict[str, Any]) -> None:
        path = packed / f"shell-{index}.safetensors"
        write_tensors(path, tensors)
        document = json.loads((packed / "matryo.json").read_text())
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        import hashlib

        header = hashlib.sha256(data[8 : 8 + length]).hexdigest()
        document["shells"][index].update(bytes=len(data), header_sha256=header)
        write_json(packed / "matryo.json", document)

    replace(2, {"embed": ("F32", np.zeros((1, 32, 16), np.float32))})
    with pytest.raises(CheckpointError, match="embed: tensor is in two shells"):
        PackedModel(packed).tensors()
    for padding in range(1, 5):
        odd = np.zeros(padding, np.uint8)
        replace(2, {"odd": ("U8", odd), "vector": ("F32", np.zeros(4, np.float32))})
        try:
            assert PackedModel(packed).tensors()["vector"].flags.aligned
        except CheckpointError as error:
            assert "vector: is not aligned" in str(error)
            break
    else:
        raise AssertionError("no padding put the vector off its alignment")
