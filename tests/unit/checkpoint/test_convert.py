"""Converting gives what loading gives, the same bytes however often it was stopped."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.files import PLANS, contents, hub_config, write_checkpoint, write_json
from helpers.random_weights import SMALL, config_of, random_state
from matryo.checkpoint import pack as packing
from matryo.checkpoint import writing
from matryo.checkpoint.convert import Conversion, convert
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.pack import pack_in_memory
from matryo.checkpoint.packed import PackedModel
from matryo.errors import CapacityError, CheckpointError, ConfigError

COMMIT_BYTES = 20_000
KINDS = ("f32", "bf16", "q8", "q4")
TEXT_FILES = {"tokenizer.json": "{}", "tokenizer_config.json": "{}", "chat_template.jinja": "",
              "generation_config.json": '{"eos_token_id": 1}'}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("source")
    write_checkpoint(directory, shards=2)
    for name, text in TEXT_FILES.items():
        (directory / name).write_text(text, encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted conversion to q4 writes."""
    target = tmp_path_factory.mktemp("whole") / "q4"
    convert(source, target, "q4")
    return contents(target)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, and a point to continue from after every few of them."""
    monkeypatch.setattr(packing, "BLOCK_WEIGHTS", 3000)
    monkeypatch.setattr(writing, "COMMIT_BYTES", COMMIT_BYTES)


def refuses_to_load(target: Path) -> bool:
    """Whether neither of the two readers takes a directory for a model."""
    for reader in (PackedModel, HuggingFaceSource):
        try:
            reader(target)
        except (CheckpointError, ConfigError):
            continue
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_converted_checkpoint_holds_what_is_packed_in_memory(
    source: Path, tmp_path: Path, kind: str
) -> None:
    manifest = convert(source, tmp_path / "new", kind)
    expected = pack_in_memory(Conversion(HuggingFaceSource(source), kind).tensors)
    model = PackedModel(tmp_path / "new")
    got = model.tensors()
    assert (manifest.weights, model.weights, model.config) == (
        kind,
        kind,
        HuggingFaceSource(source).config,
    )
    assert got.keys() == expected.keys()
    assert all(np.array_equal(got[name], expected[name]) for name in got)
    model.verify()


def test_what_lies_beside_the_weights_comes_along_and_nothing_else(
    source: Path, whole: dict[str, bytes]
) -> None:
    shells = {f"shell-{index}.safetensors" for index in range(1 + len(PLANS))}
    assert set(whole) == shells | {"matryo.json", "config.json", "plans.json"} | set(TEXT_FILES)
    for name in ("config.json", "plans.json", *TEXT_FILES):
        assert whole[name] == (source / name).read_bytes()


def test_every_matrix_begins_where_vector_loads_like_it(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
    for name, array in PackedModel(tmp_path).tensors().items():
        assert array.ctypes.data % 32 == 0 or array.ndim < 2 or array.dtype == np.float32, name


def test_converting_again_does_nothing(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    first = convert(source, target, "q4")
    before = {path.name: path.stat().st_mtime_ns for path in target.iterdir()}
    assert convert(source, target, "q4") == first
    assert {path.name: path.stat().st_mtime_ns for path in target.iterdir()} == before


def test_a_directory_with_something_else_is_left_alone(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "packed", "q4")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear", encoding="utf-8")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for target, message in (
        ("packed", "holds another packed model"),
        ("mine", "not empty"),
        ("file", "is a file; expected a directory"),
    ):
        before = contents(tmp_path / target) if (tmp_path / target).is_dir() else {}
        with pytest.raises(CheckpointError, match=message):
            convert(source, tmp_path / target, "q8")
        assert not before or contents(tmp_path / target) == before
    with pytest.raises(CheckpointError, match="not empty"):
        convert(source, source, "q8")


def test_what_is_packed_already_is_sent_to_unpack(source: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    convert(source, packed, "q4")
    with pytest.raises(CheckpointError, match=f"is packed already: `matryo unpack -m {packed} "):
        convert(packed, tmp_path / "again", "q8")
    assert not (tmp_path / "again").exists()


def test_a_target_that_does_not_exist_yet_is_made_with_its_parents(
    source: Path, tmp_path: Path
) -> None:
    convert(source, tmp_path / "a" / "b", "q4")
    PackedModel(tmp_path / "a" / "b").verify()


def test_a_bad_source_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="weights is 'q5'"):
        convert(source, tmp_path / "new", "q5")
    with pytest.raises(ConfigError, match="cannot read"):
        convert(tmp_path / "nothing", tmp_path / "new", "q4")
    broken = Path(shutil.copytree(source, tmp_path / "broken"))
    write_json(broken / "plans.json", {"x": {"layers": [9, 9]}})
    with pytest.raises(CheckpointError, match="plan 'x'"):
        convert(broken, tmp_path / "new", "q4")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("bad", [np.nan, 1e38])
def test_a_weight_that_is_no_number_is_named_and_leaves_nothing(tmp_path: Path, bad: float) -> None:
    state = random_state(config_of(SMALL))
    state["layers.5.mlp.down_proj.weight"][40, 101] = bad
    write_checkpoint(tmp_path / "source", state=state)
    with pytest.raises(
        CheckpointError,
        match=r"layers\.5\.mlp\.down_proj\.weight: row 40, column 101 is not",
    ):
        convert(tmp_path / "source", tmp_path / "new", "q4")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("after", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_an_interrupted_run_goes_on_where_it_stopped(
    source: Path, whole: dict[str, bytes], tmp_path: Path, after: float
) -> None:
    target = tmp_path / "new"

    def interrupt(done: int, total: int, name: str) -> None:
        if done >= after * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, target, "q4", progress=interrupt)
    assert refuses_to_load(target)
    seen: list[tuple[int, int]] = []
    convert(source, target, "q4", progress=lambda done, total, name: seen.append((done, total)))
    assert contents(target) == whole
    assert seen == sorted(seen)
    if seen:  # what was done is not done again
        first, total = seen[0]
        assert first >= after * total - COMMIT_BYTES
        assert seen[-1] == (total, total)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("damage", ["partial", "note", "no note", "longer", "finished shell"])
def test_what_an_interrupted_run_left_is_checked_before_it_is_used(
    source: Path, whole: dict[str, bytes], tmp_path: Path, damage: str
) -> None:
    target = tmp_path / "new"

    def interrupt(done: int, total: int, name: str) -> None:
        if done > 0.9 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, target, "q4", progress=interrupt)
    (partial,) = target.glob("*.partial")
    note = partial.with_name(partial.name.replace(".partial", ".progress"))
    if damage == "partial":
        data = bytearray(partial.read_bytes())
        data[5000] ^= 1
        partial.write_bytes(data)
    elif damage == "note":
        note.write_text(
            '{"tensor": 1, "block": "x", "offset": 4096, "sha256": null}', encoding="utf-8"
        )
    elif damage == "no note":
        note.unlink()
    elif damage == "longer":  # written, but not known to be on the disk
        with partial.open("ab") as file:
            file.write(bytes(1 << 20))
    else:
        path = target / "shell-0.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    convert(source, target, "q4")
    assert contents(target) == whole


@pytest.mark.usefixtures("often")
def test_another_conversion_does_not_continue_this_one(
    source: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    def interrupt(done: int, total: int, name: str) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "new", "q8", progress=interrupt)
    convert(source, tmp_path / "new", "q4")
    assert contents(tmp_path / "new") == whole


@pytest.mark.usefixtures("often")
def test_a_source_that_changed_is_converted_anew(source: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(source, tmp_path / "mine"))

    def interrupt(done: int, total: int, name: str) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(mine, tmp_path / "new", "f32", progress=interrupt)
    changed = random_state(config_of(SMALL), seed=1)
    write_checkpoint(mine, state=changed, shards=2)
    convert(mine, tmp_path / "new", "f32")
    expected = pack_in_memory(Conversion(HuggingFaceSource(mine), "f32").tensors)
    got = PackedModel(tmp_path / "new").tensors()
    assert all(np.array_equal(got[name], expected[name]) for name in expected)


def test_two_processes_do_not_write_one_directory(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    target.mkdir()
    handle = os.open(target, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="another process is writing here"):
            convert(source, target, "q4")
    finally:
        os.close(handle)
    convert(source, target, "q4")


def test_one_that_may_wait_for_another_finds_what_it_wrote(source: Path, tmp_path: Path) -> None:
    target, begun = tmp_path / "new", threading.Event()
    results: list[Any] = []

    def first() -> None:
        def slowly(done: int, total: int, name: str) -> None:
            begun.set()
            time.sleep(0.002)

        results.append(convert(source, target, "q4", progress=slowly))

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(60)
    seen: list[int] = []
    second = convert(source, target, "q4", progress=lambda d, t, n: seen.append(d), wait=True)
    thread.join()
    assert [second] == results
    assert seen == []


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 1000))
    with pytest.raises(CapacityError, match="are needed") as caught:
        convert(source, tmp_path / "new", "q4")
    assert caught.value.available == 1000
    assert not (tmp_path / "new").exists()


@contextmanager
def files_at_most(num_bytes: int) -> Iterator[None]:
    """The system refuses to let a file of this process grow beyond this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("often")
def test_a_disk_that_becomes_full_leaves_nothing_that_loads_and_loses_nothing(
    source: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    target = tmp_path / "new"
    with files_at_most(len(whole["shell-0.safetensors"]) * 2 // 3):
        with pytest.raises(CapacityError, match="free some space and run the same again"):
            convert(source, target, "q4")
        assert refuses_to_load(target)
    seen: list[int] = []
    convert(source, target, "q4", progress=lambda done, total, name: seen.append(done))
    assert seen[0] > len(whole["shell-0.safetensors"]) // 2
    assert contents(target) == whole


# Runs a conversion in small blocks and says so line by line.
KILLED = """
import sys
from pathlib import Path
from matryo.checkpoint import pack, writing
from matryo.checkpoint.convert import convert
pack.BLOCK_WEIGHTS, writing.COMMIT_BYTES = 3000, int(sys.argv[3])
def say(done, total, name):
    print(done, flush=True)

convert(Path(sys.argv[1]), Path(sys.argv[2]), "q4", progress=say)
print("written", flush=True)
"""


def test_killed_at_any_moment_nothing_loads_wrongly_and_a_later_run_finishes(
    source: Path, whole: dict[str, bytes], tmp_path: Path, rng: np.random.Generator
) -> None:
    target = tmp_path / "new"
    reached = []
    for lines in (*rng.integers(1, 120, 3), 10**9):
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                KILLED,
                str(source),
                str(target),
                str(rng.integers(1, COMMIT_BYTES)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        seen = [line.strip() for line, _ in zip(process.stdout, range(int(lines)), strict=False)]
        process.kill()
        process.wait()
        process.stdout.close()
        reached.append(seen)
        if seen[-1] == "written":
            break
        assert refuses_to_load(target)
    assert reached[-1][-1] == "written"
    assert len(reached) > 1
    assert contents(target) == whole
    PackedModel(target).verify()


def test_killed_between_the_last_shell_and_the_manifest(
    source: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    for moment in ("copy_beside", "replace_text"):
        monkeypatch.setattr(f"matryo.checkpoint.convert.{moment}", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "new", "q4")
        monkeypatch.undo()
        assert refuses_to_load(tmp_path / "new")
        assert "matryo.json" not in contents(tmp_path / "new")
    convert(source, tmp_path / "new", "q4")
    assert contents(tmp_path / "new") == whole


# A checkpoint of 130 MB of zeros in a sparse file: it takes no room and its pages count when they
# are read.
BIG = {
    **hub_config(
        vocab_size=33_280, vocab_size_per_layer_input=32_768, hidden_size_per_layer_input=256
    ),
    "dtype": "bfloat16",
}
MEASURED = """
import resource, sys
from pathlib import Path
import numpy
from matryo import kernels
from matryo.checkpoint import pack
from matryo.checkpoint.convert import convert
pack.BLOCK_WEIGHTS = 1 << 20
kernels.set_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
convert(Path(sys.argv[1]), Path(sys.argv[2]), "q4")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_memory_does_not_grow_with_the_checkpoint(tmp_path: Path) -> None:
    from matryo.checkpoint.text_tensors import text_shapes

    source = tmp_path / "source"
    source.mkdir()
    write_json(source / "config.json", BIG)
    header, offset = {}, 0
    for name, shape in text_shapes(config_of(BIG)).items():
        size = 2 * int(np.prod(shape))
        header[f"model.{name}"] = {
            "dtype": "BF16",
            "shape": shape,
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    with (source / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    assert offset > 120e6
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, source, tmp_path / "new"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 60_000  # KiB: some blocks of 4 MiB, and what the interpreter adds
    PackedModel(tmp_path / "new").verify()
