"""Whatever the bytes of a file are, reading it gives what it holds or an error of ours: no other
exception, no byte from outside.

Files are changed blindly (bytes flipped, cut off, put in) and with knowledge (JSON values replaced,
checksums made right again).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import matryo
from helpers.files import contents, entry, hub_config, safetensors_bytes, write_checkpoint
from matryo.checkpoint.convert import convert
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.packed import PackedModel
from matryo.checkpoint.safetensors import DTYPES, SafetensorsFile
from matryo.config import TextConfig
from matryo.errors import CheckpointError, ConfigError, MatryoError
from matryo.loading import Model
from matryo.session.file import MAGIC, SessionFile, read_session, write_session

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(FEW, max_examples=100)

Change = Callable[[bytes], bytes]


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """A blind change of a file: some bytes replaced, the end cut off, or bytes put in."""
    where = st.floats(0, 1, exclude_max=True)
    kind = draw(st.sampled_from(["replace", "cut", "put in"]))
    places = draw(st.lists(st.tuples(where, st.integers(0, 255)), min_size=1, max_size=4))
    more = draw(st.binary(min_size=1, max_size=9))

    def apply(data: bytes) -> bytes:
        changed = bytearray(data)
        at = int(places[0][0] * len(data))
        if kind == "cut":
            return bytes(changed[:at])
        if kind == "put in":
            return bytes(changed[:at] + more + changed[at:])
        for place, value in places:
            changed[int(place * len(data))] = value
        return bytes(changed)

    return apply


# JSON values as they are likely and as they are not.
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 40),
    st.sampled_from([2**31, 2**32 + 1, 2**63, 2**64, 10**30, -(2**63)]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(
        ["", "F32", "BF16", "U8", "w", "sliding_attention", "../x.safetensors", "\0", "\ud800"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "a", ""]), inner)
    ),
    max_leaves=6,
)


def replaced(document: Any, path: list[int], value: Any) -> Any:
    """A copy of a JSON document with one of its values, chosen by `path`, replaced."""
    if not path or not isinstance(document, (dict, list)) or not document:
        return value
    keys = sorted(document) if isinstance(document, dict) else range(len(document))
    key = keys[path[0] % len(keys)]
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[key] = replaced(document[key], path[1:], value)
    return copy


paths = st.lists(st.integers(0, 40), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that every example of a test writes anew."""
    return tmp_path_factory.mktemp("hostile")


WEIGHTS = safetensors_bytes(
    {
        "__metadata__": {"format": "pt"},
        "a": entry("F32", (2, 3), 0, 24),
        "b": entry("BF16", (5,), 24, 34),
        "empty": entry("U8", (0, 4), 34, 34),
        "c": entry("I64", (), 34, 42),
    },
    bytes(range(42)),
)


def check_tensors(path: Path) -> None:
    """Reads a file; what is read must be what lies at the place that the header names."""
    data = path.read_bytes()
    try:
        file = SafetensorsFile(path)
    except CheckpointError as error:
        assert len(str(error)) < 2000
        return
    covered = 0
    for name, info in file.tensors.items():
        array = file.array(name)
        assert array.tobytes() == data[info.start : info.end]
        assert 8 <= info.start <= info.end <= len(data)
        covered += info.end - info.start
    assert covered == len(data) - 8 - int.from_bytes(data[:8], "little")


@MANY
@given(change=changes())
def test_weights_changed_blindly(place: Path, change: Change) -> None:
    path = place / "x.safetensors"
    path.write_bytes(change(WEIGHTS))
    check_tensors(path)


entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES, "F8"]) | values,
        "shape": st.lists(st.integers(0, 5) | st.sampled_from([2**31, 2**62]), max_size=4) | values,
        "data_offsets": st.lists(st.integers(0, 40), min_size=2, max_size=2) | values,
    }
)


@MANY
@given(
    header=st.dictionaries(st.text(max_size=3), entries | values, max_size=4) | values,
    length=st.none() | st.integers(0, 2**64 - 1),
    data=st.binary(max_size=48),
)
def test_headers_made_up(place: Path, header: Any, length: int | None, data: bytes) -> None:
    path = place / "x.safetensors"
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    path.write_bytes(safetensors_bytes(text, data, length=length))
    check_tensors(path)


@MANY
@given(path=paths, value=values)
def test_headers_with_one_value_replaced(place: Path, path: list[int], value: Any) -> None:
    length = int.from_bytes(WEIGHTS[:8], "little")
    header = replaced(json.loads(WEIGHTS[8 : 8 + length]), path, value)
    file = place / "x.safetensors"
    file.write_bytes(safetensors_bytes(json.dumps(header).encode(), WEIGHTS[8 + length :]))
    check_tensors(file)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_checkpoint(directory, shards=2)
    return directory


@pytest.fixture(scope="module")
def packed(checkpoint: Path) -> dict[str, bytes]:
    """The files of a packed directory."""
    convert(checkpoint, checkpoint.parent / "packed", "q4")
    return contents(checkpoint.parent / "packed")


def write_all(directory: Path, files: dict[str, bytes]) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


def load_or_refuse(directory: Path) -> Model | None:
    try:
        return matryo.load(directory)
    except (CheckpointError, ConfigError) as error:
        assert len(str(error)) < 2000
        return None


@FEW
@given(change=changes(), data=st.data())
def test_a_packed_directory_with_one_file_changed_blindly(
    place: Path, packed: dict[str, bytes], change: Change, data: st.DataObject
) -> None:
    """A change in a header, a size, a manifest is seen at once; one in the weights by `verify`."""
    name = data.draw(st.sampled_from(sorted(packed)))
    changed = change(packed[name])
    assume(changed != packed[name])
    directory = write_all(place / "packed", {**packed, name: changed})
    model = load_or_refuse(directory)
    if model is None:
        return
    model.close()
    if name.startswith("shell-"):
        length = int.from_bytes(packed[name][:8], "little")
        assert changed[: 8 + length] == packed[name][: 8 + length]
        with pytest.raises(CheckpointError, match="damaged"):
            PackedModel(directory).verify()


@FEW
@given(path=paths, value=values, data=st.data())
def test_a_packed_directory_with_one_value_of_its_json_replaced(
    place: Path, packed: dict[str, bytes], path: list[int], value: Any, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(["matryo.json", "config.json", "plans.json"]))
    text = json.dumps(replaced(json.loads(packed[name]), path, value))
    model = load_or_refuse(write_all(place / "packed", {**packed, name: text.encode()}))
    if model is not None:
        assert model.logits([1, 2, 3]).shape == (3, model.config.vocab_size)
        model.close()


@FEW
@given(path=paths, value=values, data=st.data())
def test_a_hugging_face_directory_with_one_value_of_its_json_replaced(
    place: Path, checkpoint: Path, path: list[int], value: Any, data: st.DataObject
) -> None:
    files = contents(checkpoint)
    name = data.draw(st.sampled_from(["model.safetensors.index.json", "config.json", "plans.json"]))
    text = json.dumps(replaced(json.loads(files[name]), path, value))
    directory = write_all(place / "hub", {**files, name: text.encode()})
    try:
        HuggingFaceSource(directory)
    except (CheckpointError, ConfigError) as error:
        assert len(str(error)) < 2000


@MANY
@given(path=paths, value=values)
def test_a_config_with_one_value_replaced(path: list[int], value: Any) -> None:
    multimodal = {"model_type": "gemma3n", "text_config": hub_config(rope_parameters=None)}
    for document in (hub_config(rope_scaling=None), multimodal):
        try:
            config = TextConfig.from_json(replaced(document, path, value))
        except ConfigError as error:
            assert len(str(error)) < 2000
        else:
            assert len(config.ffn_width) == len(config.window) == config.num_layers


ARRAYS: dict[str, npt.NDArray[Any]] = {
    "ids": np.arange(5, dtype=np.int32),
    "pages": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "none": np.zeros((0, 3), np.float32),
}


@pytest.fixture(scope="module")
def session_bytes(place: Path) -> bytes:
    write_session(place / "good.session", {"plan": {"a": [1, 2]}, "cached": 4}, ARRAYS)
    return (place / "good.session").read_bytes()


def read_or_refuse(path: Path) -> SessionFile | None:
    try:
        return read_session(path)
    except CheckpointError as error:
        assert len(str(error)) < 2000
        return None


def test_a_session_file_is_what_was_written(place: Path, session_bytes: bytes) -> None:
    got = read_session(place / "good.session")
    assert got.values == {"plan": {"a": [1, 2]}, "cached": 4}
    assert got.arrays.keys() == ARRAYS.keys()
    assert all(np.array_equal(got.arrays[name], array) for name, array in ARRAYS.items())


@MANY
@given(change=changes())
def test_a_session_file_changed_blindly_is_refused(
    place: Path, session_bytes: bytes, change: Change
) -> None:
    changed = change(session_bytes)
    assume(changed != session_bytes)
    (place / "x.session").write_bytes(changed)
    assert read_or_refuse(place / "x.session") is None


def signed(header: bytes, data: bytes, length: int | None = None) -> bytes:
    """A session file whose checksum is right."""
    body = struct.pack("<8sQ", MAGIC, len(header) if length is None else length) + header + data
    return body + hashlib.sha256(body).digest()


@MANY
@given(
    values=values,
    table=st.lists(
        st.tuples(st.text(max_size=2), st.sampled_from(["u8", "i32", "f32", "x"]) | values, values),
        max_size=3,
    )
    | values,
    length=st.none() | st.integers(0, 2**64 - 1),
    data=st.binary(max_size=40),
)
def test_a_session_file_of_anybody_with_a_right_checksum(
    place: Path, values: Any, table: Any, length: int | None, data: bytes
) -> None:
    header = json.dumps({"values": values, "arrays": table}).encode()
    (place / "x.session").write_bytes(signed(header, data, length))
    got = read_or_refuse(place / "x.session")
    if got is not None:
        assert sum(array.nbytes for array in got.arrays.values()) == len(data)
        assert b"".join(array.tobytes() for array in got.arrays.values()) == data


@pytest.mark.parametrize("header", [b"[" * 200_000, b'{"values": ' * 100_000, b"9" * 5000, b"\xff"])
def test_a_session_file_with_a_header_that_no_parser_likes_is_refused(
    place: Path, header: bytes
) -> None:
    (place / "x.session").write_bytes(signed(header, b""))
    assert read_or_refuse(place / "x.session") is None


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    with matryo.load(checkpoint, weights="q4") as opened:
        yield opened


@FEW
@given(path=paths, value=values, data=st.data())
def test_a_saved_conversation_with_one_value_replaced_restores_or_is_refused(
    place: Path, model: Model, path: list[int], value: Any, data: st.DataObject
) -> None:
    session = model.session()
    session.prefill([2, 7, 8, 9, 30])
    session.save(place / "talk.session")
    raw = (place / "talk.session").read_bytes()
    length = int.from_bytes(raw[8:16], "little")
    header = json.loads(raw[16 : 16 + length])
    part = data.draw(st.sampled_from(["values", "arrays"]))
    header[part] = replaced(header[part], path, value)
    arrays = bytearray(raw[16 + length : -32])
    if data.draw(st.booleans()):
        arrays[data.draw(st.integers(0, len(arrays) - 1))] = 0xFF
    (place / "talk.session").write_bytes(signed(json.dumps(header).encode(), bytes(arrays)))
    try:
        restored = model.restore(place / "talk.session")
    except CheckpointError as error:
        assert len(str(error)) < 3000
        return
    try:
        list(restored.generate([5], max_tokens=2, sampling=matryo.GREEDY))
    except MatryoError:
        pass  # a cache may hold anything, NaN too; that is found when it is used
