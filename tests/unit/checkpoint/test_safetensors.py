"""The reader gives what others wrote, bit for bit, and refuses what is not exactly right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from helpers.files import entry, safetensors_bytes
from matryo.checkpoint.safetensors import SafetensorsFile, write_header
from matryo.errors import CheckpointError

NUMPY_DTYPES = [np.dtype(name) for name in "bool u1 i1 u2 i2 f2 u4 i4 f4 u8 i8 f8".split()]


@pytest.mark.parametrize("dtype", NUMPY_DTYPES, ids=str)
def test_every_dtype_is_read_as_it_was_written(
    tmp_path: Path, dtype: np.dtype[Any], rng: np.random.Generator
) -> None:
    tensors = {
        "matrix": rng.integers(0, 2, (3, 5)).astype(dtype),
        "scalar": np.ones((), dtype),
        "empty": np.zeros((4, 0, 2), dtype),
    }
    safetensors.numpy.save_file(tensors, tmp_path / "x.safetensors")
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert file.tensors.keys() == tensors.keys()
    for name, expected in tensors.items():
        got = file.array(name)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(got, expected)


def test_bfloat16_is_given_as_its_bits(tmp_path: Path) -> None:
    values = torch.tensor([[1.0, -2.5, 3.140625], [0.0, -0.0, 65504.0]], dtype=torch.bfloat16)
    safetensors.torch.save_file({"w": values}, tmp_path / "x.safetensors")
    got = SafetensorsFile(tmp_path / "x.safetensors").array("w")
    assert got.dtype == np.uint16
    assert np.array_equal(got, values.view(torch.uint16).numpy())


def test_a_written_header_is_read_by_the_reference_reader(tmp_path: Path) -> None:
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    codes = np.arange(7, dtype=np.uint8)
    header, places, size = write_header(
        {"w": ("F32", (3, 4)), "codes": ("U8", (7,))}, {"format": "pt"}
    )
    path = tmp_path / "x.safetensors"
    path.write_bytes(header + weights.tobytes() + codes.tobytes())
    assert path.stat().st_size == size
    assert (places["w"], places["codes"]) == (len(header), len(header) + 48)
    assert len(header) % 4096 == 0  # pages of the file are pages of memory
    theirs = safetensors.numpy.load_file(path)
    assert np.array_equal(theirs["w"], weights) and np.array_equal(theirs["codes"], codes)
    assert SafetensorsFile(path).metadata == {"format": "pt"}


def simple(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    return path


def test_views_cannot_be_written_and_share_one_mapping(tmp_path: Path) -> None:
    path = simple(tmp_path, safetensors_bytes({"w": entry("F32", (2,), 0, 8)}, bytes(8)))
    file = SafetensorsFile(path)
    one, other = file.array("w"), file.array("w")
    assert np.shares_memory(one, other)
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1.0


def test_views_outlive_the_file_object_and_the_file(tmp_path: Path) -> None:
    path = simple(tmp_path, safetensors_bytes({"w": entry("U8", (3,), 0, 3)}, b"abc"))
    view = SafetensorsFile(path).array("w")
    path.unlink()
    assert view.tobytes() == b"abc"


def test_forgotten_pages_come_back(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.integers(0, 256, 1 << 16).astype(np.uint8)
    safetensors.numpy.save_file({"w": values}, tmp_path / "x.safetensors")
    file = SafetensorsFile(tmp_path / "x.safetensors")
    view = file.array("w")
    for first, last in ((0, None), (5000, 40000), (60000, 1 << 20)):
        file.forget("w", first, last)
        assert np.array_equal(view, values)


def test_a_name_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = simple(tmp_path, safetensors_bytes({}))
    with pytest.raises(CheckpointError, match=r"x\.safetensors: missing: no such tensor"):
        SafetensorsFile(path).array("missing")


GOOD = entry("U8", (4,), 0, 4)
DEEP = b"[" * 200_000
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too short"),
    "seven bytes": (bytes(7), "too short"),
    "length beyond the file": (
        safetensors_bytes({"w": GOOD}, bytes(4), length=10**6),
        "beyond the file",
    ),
    "length of 2^64 - 1": (
        safetensors_bytes({"w": GOOD}, bytes(4), length=2**64 - 1),
        "beyond the file",
    ),
    "not JSON": (safetensors_bytes(b"{nope}"), "not valid JSON"),
    "not UTF-8": (safetensors_bytes(b'{"\xff": 1}'), "not valid JSON"),
    "no object": (safetensors_bytes([1, 2]), "not a JSON object"),
    "deep": (safetensors_bytes(DEEP), "not valid JSON"),
    "deep object": (safetensors_bytes(b'{"a":' * 100_000), "not valid JSON"),
    "long number": (safetensors_bytes(b'{"w": ' + b"9" * 5000 + b"}"), "not valid JSON"),
    "name twice": (
        safetensors_bytes(b'{"w": %b, "w": %b}' % ((json.dumps(GOOD).encode(),) * 2), bytes(4)),
        "appears twice",
    ),
    "key twice": (
        safetensors_bytes(
            b'{"w": {"dtype": "U8", "dtype": "I8", "shape": [4], "data_offsets": [0, 4]}}', bytes(4)
        ),
        "appears twice",
    ),
    "entry is a list": (safetensors_bytes({"w": []}), "malformed entry"),
    "unknown key": (safetensors_bytes({"w": {**GOOD, "more": 1}}, bytes(4)), "malformed entry"),
    "missing key": (
        safetensors_bytes({"w": {"dtype": "U8", "shape": [4]}}, bytes(4)),
        "malformed entry",
    ),
    "unknown dtype": (safetensors_bytes({"w": entry("F8", (4,), 0, 4)}, bytes(4)), "unknown dtype"),
    "dtype is a list": (
        safetensors_bytes({"w": {**GOOD, "dtype": ["U8"]}}, bytes(4)),
        "unknown dtype",
    ),
    "negative size": (safetensors_bytes({"w": entry("U8", (-4,), 0, 4)}, bytes(4)), "bad shape"),
    "size is a float": (safetensors_bytes({"w": {**GOOD, "shape": [4.0]}}, bytes(4)), "bad shape"),
    "size is a bool": (safetensors_bytes({"w": {**GOOD, "shape": [True]}}, bytes(4)), "bad shape"),
    "size beyond reason": (
        safetensors_bytes({"w": entry("U8", (1 << 60,), 0, 4)}, bytes(4)),
        "bad shape",
    ),
    "rank beyond reason": (
        safetensors_bytes({"w": entry("U8", (1,) * 33, 0, 1)}, bytes(1)),
        "bad shape",
    ),
    "product wraps to four": (
        safetensors_bytes({"w": entry("U8", (1 << 33, 1 << 33, 1 << 33), 0, 4)}, bytes(4)),
        "size and shape disagree",
    ),
    "offsets reversed": (
        safetensors_bytes({"w": entry("U8", (4,), 4, 0)}, bytes(4)),
        "bad data_offsets",
    ),
    "offset negative": (
        safetensors_bytes({"w": entry("U8", (4,), -4, 0)}, bytes(4)),
        "bad data_offsets",
    ),
    "offsets beyond the file": (
        safetensors_bytes({"w": entry("U8", (9,), 0, 9)}, bytes(4)),
        "does not end",
    ),
    "offset far beyond": (
        safetensors_bytes({"w": entry("U8", (4,), 1 << 40, (1 << 40) + 4)}, bytes(4)),
        "overlaps or leaves a hole",
    ),
    "size and shape disagree": (
        safetensors_bytes({"w": entry("F32", (4,), 0, 4)}, bytes(4)),
        "size and shape",
    ),
    "overlap": (
        safetensors_bytes({"a": entry("U8", (4,), 0, 4), "b": entry("U8", (4,), 2, 6)}, bytes(6)),
        "overlaps or leaves a hole",
    ),
    "same place": (
        safetensors_bytes({"a": GOOD, "b": GOOD}, bytes(4)),
        "overlaps or leaves a hole",
    ),
    "hole": (
        safetensors_bytes({"a": GOOD, "b": entry("U8", (2,), 6, 8)}, bytes(8)),
        "overlaps or leaves a hole",
    ),
    "bytes after the last tensor": (safetensors_bytes({"w": GOOD}, bytes(5)), "does not end"),
    "bytes missing": (safetensors_bytes({"w": GOOD}, bytes(3)), "does not end"),
    "metadata of numbers": (safetensors_bytes({"__metadata__": {"a": 1}}), "__metadata__"),
    "metadata is a list": (safetensors_bytes({"__metadata__": ["a"]}), "__metadata__"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_by_name(tmp_path: Path, case: str) -> None:
    data, message = HOSTILE[case]
    path = simple(tmp_path, data)
    with pytest.raises(CheckpointError, match=message) as caught:
        SafetensorsFile(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="cannot open"):
            SafetensorsFile(path)
