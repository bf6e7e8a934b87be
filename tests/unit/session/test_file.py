"""Session files: whole or not there, and nothing in them believed before it is checked."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matryo.errors import CheckpointError
from matryo.session.file import MAGIC, read_session, write_session

VALUES = {"a": [1, None, "ü"], "b": {"c": 0.5}}
ARRAYS: dict[str, npt.NDArray[Any]] = {
    "ids": np.arange(5, dtype=np.int32),
    "none": np.zeros((0, 7), np.uint8),
    "kv": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "x": np.array([[1.5]], np.float32),
}


def written(directory: Path) -> Path:
    path = directory / "a.session"
    write_session(path, VALUES, ARRAYS)
    return path


def sealed(header: object, data: bytes = b"") -> bytes:
    """A file with a right checksum around any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = struct.pack("<8sQ", MAGIC, len(text)) + text + data
    return body + hashlib.sha256(body).digest()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = read_session(written(tmp_path))
    assert file.values == VALUES and list(file.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert file.arrays[name].dtype == array.dtype and np.array_equal(file.arrays[name], array)
    assert os.listdir(tmp_path) == ["a.session"]


def test_views_that_are_not_contiguous_are_written_in_order(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int32).reshape(4, 6)[::2, ::3]
    write_session(tmp_path / "a", {}, {"x": array})
    assert np.array_equal(read_session(tmp_path / "a").arrays["x"], array)


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_changed_missing_or_added_byte_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    whole = written(tmp_path).read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.sampled_from(["flip", "cut", "insert", "append"]))
    broken = {
        "flip": whole[:place]
        + bytes([whole[place] ^ data.draw(st.integers(1, 255))])
        + whole[place + 1 :],
        "cut": whole[:place],
        "insert": whole[:place] + b"\0" + whole[place:],
        "append": whole + data.draw(st.binary(min_size=1, max_size=80)),
    }[change]
    path = tmp_path / "broken"
    path.write_bytes(broken)
    with pytest.raises(CheckpointError, match="broken: "):
        read_session(path)


@given(data=st.binary(max_size=200))
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "noise"
    for content in (data, MAGIC + data, sealed(data)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            read_session(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "expected a header"),
        ({"values": {}}, "expected a header"),
        ({"values": {}, "arrays": [], "more": 1}, "expected a header"),
        ({"values": [], "arrays": []}, "to be an object"),
        ({"values": {}, "arrays": {}}, "arrays a list"),
        ({"values": {}, "arrays": [["a", "u8"]]}, "expected arrays as"),
        ({"values": {}, "arrays": [["a", "f64", [1]]]}, "expected arrays as"),
        ({"values": {}, "arrays": [["a", ["u8"], [1]]]}, "expected arrays as"),
        ({"values": {}, "arrays": [[1, "u8", [1]]]}, "expected arrays as"),
        ({"values": {}, "arrays": [["a", "u8", 3]]}, "expected arrays as"),
        ({"values": {}, "arrays": [["a", "u8", [-1]]]}, "expected arrays as"),
        ({"values": {}, "arrays": [["a", "u8", [True]]]}, "expected arrays as"),
        ({"values": {}, "arrays": [["a", "u8", [1 << 41]]]}, "expected arrays as"),
        ({"values": {}, "arrays": [["a", "u8", [1] * 5]]}, "expected arrays as"),
        ({"values": {}, "arrays": [["a", "u8", [1 << 39, 1 << 39, 1 << 39]]]}, "need a file of"),
        ({"values": {}, "arrays": [["a", "u8", [5]]]}, "need a file of"),
        ({"values": {}, "arrays": [["a", "u8", [2]], ["a", "u8", [2]]]}, "named twice"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff", "not JSON"),
    ],
)
def test_headers_with_a_right_checksum_are_still_checked(
    tmp_path: Path, header: object, message: str
) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(sealed(header, b"1234"))
    with pytest.raises(CheckpointError, match=message):
        read_session(path)


def test_other_versions_and_long_headers(tmp_path: Path) -> None:
    path = written(tmp_path)
    content = path.read_bytes()
    path.write_bytes(MAGIC[:7] + b"9" + content[8:])
    with pytest.raises(CheckpointError, match="version b'9', this program reads b'1'"):
        read_session(path)
    path.write_bytes(content[:8] + struct.pack("<Q", 1 << 62) + content[16:])
    with pytest.raises(CheckpointError, match="does not fit"):
        read_session(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    before = path.read_bytes()

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="No space"):
                write_session(path, {}, {})
        assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.session"]
    with pytest.raises(OSError):
        write_session(tmp_path / "absent" / "a", {}, {})
