"""`matryo.load`: every door leads to the same model; what is wrong is said before anything runs."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import matryo
from helpers.files import hub_config, write_checkpoint, write_json
from helpers.random_weights import SMALL, config_of
from matryo.checkpoint.convert import convert
from matryo.errors import (
    CapacityError,
    CheckpointError,
    ConfigError,
    InputError,
    MatryoError,
    PlanError,
)
from matryo.loading import load
from matryo.loading.home import (
    cached_directory,
    find_directory,
    home_directory,
    pulled_directory,
)
from matryo.plan import read_plans, shell_chain

F32 = npt.NDArray[np.float32]
IDS = [2, 17, 300, 5, 9, 400, 33]
KINDS = ("f32", "bf16", "q8", "q4")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory. Read only."""
    directory = tmp_path_factory.mktemp("load") / "tiny"
    write_checkpoint(directory)
    return directory


@pytest.fixture(scope="module")
def packed(hub: Path) -> Path:
    """The same, packed to q4 in three shells. Read only."""
    convert(hub, hub.parent / "packed", "q4")
    return hub.parent / "packed"


@pytest.fixture
def through_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint is small enough to be packed in memory."""
    monkeypatch.setattr(sys.modules[load.__module__], "IN_MEMORY_BYTES", 0)


def logits_of(path: Path, **settings: Any) -> F32:
    with matryo.load(path, **settings) as model:
        return model.logits(IDS)


@pytest.mark.parametrize("kind", KINDS)
def test_in_memory_converted_and_cached_give_the_same_bits(
    hub: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = logits_of(hub, weights=kind)
    convert(hub, tmp_path / "packed", kind)
    assert np.array_equal(logits_of(tmp_path / "packed"), in_memory)
    monkeypatch.setattr(sys.modules[load.__module__], "IN_MEMORY_BYTES", 0)
    assert np.array_equal(logits_of(hub, weights=kind), in_memory)


def test_the_default_is_q4(hub: Path, packed: Path) -> None:
    with matryo.load(hub) as model:
        assert model.weights == "q4"
    with matryo.load(packed) as model:
        assert (model.weights, model.name) == ("q4", "packed")
    with matryo.load(str(packed), weights="q4") as model:
        assert list(model.plans) == ["narrow", "e2b", "middle", "e4b", "full"]


def test_progress_counts_bytes_up_to_the_end(hub: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    matryo.load(hub, progress=lambda *step: seen.append(step)).close()
    assert seen[-1][0] == seen[-1][1] > 0
    assert [step[0] for step in seen] == sorted(step[0] for step in seen)


@pytest.mark.usefixtures("through_files")
def test_a_big_checkpoint_is_packed_once_and_found_again(hub: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    with matryo.load(hub, progress=lambda *step: seen.append(step)) as model:
        assert model.name == "tiny"
        (place,) = (home_directory() / "packed").iterdir()
        assert {row.name for row in model.ledger().rows} >= {"shell-0.safetensors"}
    assert seen
    before = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    seen.clear()
    matryo.load(hub, progress=lambda *step: seen.append(step)).close()
    assert seen == []
    assert {path.name: path.stat().st_mtime_ns for path in place.iterdir()} == before
    matryo.load(hub, weights="q8").close()
    assert len(list((home_directory() / "packed").iterdir())) == 2


@pytest.mark.usefixtures("through_files")
def test_packing_that_was_stopped_goes_on_with_the_next_load(hub: Path) -> None:
    def stop(done: int, total: int, name: str) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        matryo.load(hub, progress=stop)
    (place,) = (home_directory() / "packed").iterdir()
    with pytest.raises(CheckpointError, match="is unfinished"):
        matryo.load(place)
    stopped = logits_of(hub)
    shutil.rmtree(place)
    assert np.array_equal(logits_of(hub), stopped)


@pytest.mark.usefixtures("through_files")
def test_a_changed_checkpoint_is_packed_anew(hub: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(hub, tmp_path / "mine"))
    before = logits_of(mine)
    config = json.loads((mine / "config.json").read_text())
    write_json(mine / "config.json", {**config, "rms_norm_eps": 1e-2})
    assert not np.array_equal(logits_of(mine), before)


@pytest.mark.usefixtures("through_files")
def test_text_settings_are_read_beside_the_original(hub: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(hub, tmp_path / "mine"))
    matryo.load(mine).close()
    write_json(mine / "generation_config.json", {"temperature": 0.25})
    with matryo.load(mine) as model:
        assert model.sampling.temperature == 0.25


def test_a_pulled_model_is_found_by_its_name(hub: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run `matryo pull org/tiny` first"):
        matryo.load("org/tiny")
    target = pulled_directory("org/tiny")
    target.parent.mkdir(parents=True)
    target.symlink_to(hub)
    matryo.load("org/tiny").close()


def test_a_path_beats_a_name_and_a_tilde_is_the_home(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(hub.parent))
    (tmp_path / "org" / "tiny").mkdir(parents=True)
    assert find_directory("org/tiny") == Path("org/tiny")
    assert find_directory("~/tiny") == hub
    monkeypatch.delenv("MATRYO_HOME")
    assert home_directory() == hub.parent / ".cache" / "matryo"
    monkeypatch.setenv("MATRYO_HOME", "~/x")
    assert cached_directory("k") == hub.parent / "x" / "packed" / "k"


def test_nothing_is_the_embedded_model(
    packed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = sys.modules[find_directory.__module__]
    monkeypatch.setattr(home, "EMBEDDED", packed)
    with matryo.load() as model:
        assert model.name == "packed"
    monkeypatch.setattr(home, "EMBEDDED", tmp_path / "none")
    with pytest.raises(CheckpointError, match="the embedded model is missing from this"):
        matryo.load()


@pytest.mark.parametrize(
    "name", ["none", "a/b/c", "empty", "file", "\0", "none/none", "unfinished", "llama"]
)
def test_what_is_no_checkpoint_is_an_error_of_ours(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in ("empty", "unfinished", "llama"):
        (tmp_path / directory).mkdir()
    (tmp_path / "unfinished" / "matryo.unfinished").touch()
    write_json(tmp_path / "llama" / "config.json", {"model_type": "llama"})
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        matryo.load(name)
    assert "\n" not in str(caught.value)


SETTINGS: list[tuple[dict[str, Any], type[MatryoError], str]] = [
    ({"weights": "q5"}, ConfigError, "weights is 'q5'; allowed: f32, bf16, q8, q4"),
    ({"threads": 0}, ConfigError, "threads is 0; allowed: 1 to 256"),
    ({"threads": 257}, ConfigError, "threads is 257"),
    ({"threads": True}, ConfigError, "threads is True"),
    ({"threads": 1.0}, ConfigError, "threads is 1.0"),
    ({"context": 0}, ConfigError, "context is 0; allowed: 1 to 256"),
    ({"context": 257}, ConfigError, "context is 257"),
    ({"context": True}, ConfigError, "context is True"),
    ({"kv": "q8"}, InputError, "kv: expected one of f32, bf16, int8"),
    ({"weights": "q8"}, ConfigError, "is packed as q4: leave weights out"),
]


@pytest.mark.parametrize(("settings", "error", "message"), SETTINGS)
def test_a_setting_that_cannot_be_is_refused(
    packed: Path, settings: dict[str, Any], error: type[MatryoError], message: str
) -> None:
    with pytest.raises(error, match=message):
        matryo.load(packed, **settings)


def test_threads_are_those_of_the_process(packed: Path) -> None:
    from matryo import kernels

    before = kernels.threads()
    try:
        matryo.load(packed, threads=2).close()
        assert kernels.threads() == 2
        matryo.load(packed).close()
        assert kernels.threads() == 2
    finally:
        kernels.set_threads(before)


def test_a_smaller_context_is_the_limit(packed: Path) -> None:
    with matryo.load(packed, context=5) as model:
        assert model.config.context_length == 5
        model.logits(IDS[:5])
        with pytest.raises(CapacityError, match="the context holds 5 tokens"):
            model.logits(IDS)


def test_the_kind_of_the_cache_is_kept(hub: Path, packed: Path) -> None:
    def bytes_of(model: matryo.Model, kv: str | None = None) -> int:
        session = model.session(kv=kv)
        session.prefill(IDS)
        return session.cache_bytes

    with matryo.load(packed) as model:
        assert bytes_of(model) == bytes_of(model, "bf16") < bytes_of(model, "f32")
    with matryo.load(packed, kv="int8") as model:
        assert bytes_of(model) == bytes_of(model, "int8") < bytes_of(model, "bf16")
    with matryo.load(hub, weights="f32") as model:
        assert bytes_of(model) == bytes_of(model, "f32")


def test_a_missing_outer_shell_leaves_the_smaller_sizes(packed: Path, tmp_path: Path) -> None:
    inner = Path(shutil.copytree(packed, tmp_path / "inner"))
    (inner / "shell-2.safetensors").unlink()
    with matryo.load(packed) as whole, matryo.load(inner) as model:
        assert model.default_plan == model.plans["middle"]
        assert np.array_equal(model.logits(IDS), whole.logits(IDS, plan="middle"))
        assert np.array_equal(model.logits(IDS, plan="narrow"), whole.logits(IDS, plan="narrow"))
        message = r"plan 'full' cannot run.*not here: shell-2\.safetensors"
        with pytest.raises(PlanError, match=message):
            model.logits(IDS, plan="full")


DEEP = "[" * 200_000
BROKEN: dict[str, tuple[str, str, str]] = {
    "plans are a list": ("plans.json", "[]", "must hold an object"),
    "plans are deep": ("plans.json", DEEP, "is not a JSON document"),
    "a plan is illegal": ("plans.json", '{"x": {"layers": [3, 1]}}', "plan 'x'"),
    "too many plans": ("plans.json", json.dumps({str(i): {} for i in range(99)}), "at most 64"),
    "settings are a list": ("generation_config.json", "[]", "expected a JSON object"),
    "settings are deep": ("generation_config.json", DEEP, "expected JSON"),
    "a temperature of text": ("generation_config.json", '{"temperature": "hot"}', "temperature"),
    "a temperature of NaN": ("generation_config.json", '{"temperature": NaN}', "temperature"),
    "an end beyond the ids": ("generation_config.json", '{"eos_token_id": 99999}', "eos_token_id"),
    "an end of text": ("generation_config.json", '{"eos_token_id": ["x"]}', "eos_token_id"),
    "an end of bool": ("generation_config.json", '{"eos_token_id": true}', "eos_token_id"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("form", ["hub", "packed"])
def test_what_lies_beside_the_weights_is_not_trusted(
    request: pytest.FixtureRequest, tmp_path: Path, form: str, case: str
) -> None:
    name, text, message = BROKEN[case]
    mine = Path(shutil.copytree(request.getfixturevalue(form), tmp_path / "mine"))
    (mine / name).write_text(text, encoding="utf-8")
    with pytest.raises((CheckpointError, ConfigError), match=message) as caught:
        matryo.load(mine)
    assert len(str(caught.value)) < 1000


def test_the_end_is_what_the_checkpoint_says(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, config=hub_config(eos_token_id=[1, 7]))
    cases: list[tuple[dict[str, Any], set[int]]] = [
        ({}, {1, 7}),
        ({"eos_token_id": 9}, {9}),
        ({"eos_token_id": [3, 4]}, {3, 4}),
    ]
    for settings, expected in cases:
        write_json(tmp_path / "generation_config.json", settings)
        with matryo.load(tmp_path) as model:
            assert model.session()._runtime.eos_ids == expected


def test_a_directory_that_may_not_be_read_is_an_error_of_ours(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise PermissionError(13, "Permission denied", "x")

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(CheckpointError, match="x: cannot be read: Permission denied"):
        matryo.load(packed)


def test_more_plans_than_shells_are_thinned(tmp_path: Path) -> None:
    config = config_of({**SMALL, "intermediate_size": 32 * 20})
    many = {f"p{n}": {"ffn_width": 32 * n} for n in range(1, 20)}
    write_json(tmp_path / "plans.json", many)
    chain = shell_chain(read_plans(tmp_path / "plans.json", config), config)
    plans = list(chain.values())
    assert (len(plans), next(iter(chain)), set(plans[-1].ffn_width)) == (8, "p1", {640})
    for inner, outer in pairwise(plans):
        assert outer.contains(inner)
