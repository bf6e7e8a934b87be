"""Values of session files that no session has, under a right checksum."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.models import text_model
from helpers.sessions import make_runtime, new_session, text_files
from matryo.errors import CheckpointError
from matryo.model import TextModel
from matryo.sampling import GREEDY
from matryo.session import Session
from matryo.session.file import read_session, write_session
from matryo.session.runtime import Runtime

Change = Callable[[dict[str, Any], dict[str, Any]], object]


@pytest.fixture(scope="session")
def model() -> TextModel:
    return text_model(max_position_embeddings=128)


@pytest.fixture
def runtime(model: TextModel, tmp_path: Path) -> Runtime:
    return make_runtime(text_files(tmp_path), model)


@pytest.fixture
def saved(runtime: Runtime, tmp_path: Path) -> Path:
    session = new_session(runtime)
    for event in session.generate(list(range(3, 23)), max_tokens=6, sampling=GREEDY):
        session.plan = "e2b" if event.index == 2 else session.plan
    session.save(tmp_path / "a.session")
    return tmp_path / "a.session"


def test_a_saved_session_comes_back(runtime: Runtime, saved: Path) -> None:
    restored = Session.restore(runtime, saved)
    assert (
        len(restored) == 26 and restored.num_cached == 25 and restored.plan == runtime.plans["e2b"]
    )
    assert (
        restored.last_sampling == GREEDY.resolve(runtime.sampling)
        or restored.last_sampling is not None
    )
    assert not restored.is_exact


def test_an_empty_session_comes_back(runtime: Runtime, tmp_path: Path) -> None:
    new_session(runtime).save(tmp_path / "empty")
    restored = Session.restore(runtime, tmp_path / "empty")
    assert len(restored) == restored.num_cached == 0 and restored.last_sampling is None
    assert len(list(restored.generate([5], max_tokens=2))) == 3


@pytest.mark.parametrize("length", [100, 60, 48])
def test_a_restored_session_trims_like_the_live_one(
    model: TextModel, tmp_path: Path, length: int
) -> None:
    """Beyond the window the rings hold more, computed by the plan of that time: it is kept too."""
    runtime = make_runtime(text_files(tmp_path), model)
    session = new_session(runtime)
    for event in session.generate(list(range(3, 53)), max_tokens=72, sampling=GREEDY):
        session.plan = "e2b" if event.index == 2 else session.plan
    session.save(tmp_path / "a.session")
    restored = Session.restore(runtime, tmp_path / "a.session")
    for one in (session, restored):
        one.trim(length)
    assert restored.num_cached == session.num_cached == length - 1
    live, again = (
        [event.token for event in one.generate(None, max_tokens=8, sampling=GREEDY)]
        for one in (session, restored)
    )
    assert live == again
    assert restored.is_exact == session.is_exact


CHANGES: dict[str, Change] = {
    "a value missing": lambda values, arrays: values.pop("plan"),
    "a value too many": lambda values, arrays: values.update(more=1),
    "identity": lambda values, arrays: values.update(identity={"weights": "others"}),
    "identity no object": lambda values, arrays: values.update(identity=3),
    "plan": lambda values, arrays: values.update(plan={"layers": [0, 1]}),
    "plan no object": lambda values, arrays: values.update(plan=None),
    "kv": lambda values, arrays: values.update(kv="int4"),
    "other kv": lambda values, arrays: values.update(kv="int8"),
    "kv no string": lambda values, arrays: values.update(kv=["f32"]),
    "cached beyond ids": lambda values, arrays: values.update(cached=26),
    "cached negative": lambda values, arrays: values.update(cached=-1),
    "cached true": lambda values, arrays: values.update(cached=True),
    "cached fewer": lambda values, arrays: values.update(cached=3),
    "spans empty": lambda values, arrays: values.update(spans=[]),
    "spans late": lambda values, arrays: values["spans"][0].__setitem__(0, 1),
    "spans unsorted": lambda values, arrays: values["spans"].reverse(),
    "spans beyond": lambda values, arrays: values["spans"][-1].__setitem__(0, 25),
    "spans text": lambda values, arrays: values["spans"][0].__setitem__(0, "0"),
    "spans no pairs": lambda values, arrays: values.update(spans=[1]),
    "spans no list": lambda values, arrays: values.update(spans=7),
    "spans plan": lambda values, arrays: values["spans"][0].__setitem__(1, {"layers": [2]}),
    "sampling": lambda values, arrays: values.update(sampling={"top_p": 7}),
    "sampling field": lambda values, arrays: values.update(sampling={"beams": 7}),
    "sampling no object": lambda values, arrays: values.update(sampling=[1]),
    "ids missing": lambda values, arrays: arrays.pop("ids"),
    "ids too large": lambda values, arrays: arrays["ids"].__setitem__(0, 544),
    "ids negative": lambda values, arrays: arrays["ids"].__setitem__(0, -1),
    "ids bytes": lambda values, arrays: arrays.update(ids=np.zeros(26, np.uint8)),
    "ids square": lambda values, arrays: arrays.update(ids=np.zeros((2, 13), np.int32)),
    "ids beyond the context": lambda values, arrays: arrays.update(ids=np.zeros(129, np.int32)),
    "pages missing": lambda values, arrays: arrays.pop("kv.1"),
    "pages of a reader": lambda values, arrays: arrays.update({"kv.4": arrays["kv.1"]}),
    "pages cut": lambda values, arrays: arrays.update({"kv.1": arrays["kv.1"][:, :-1]}),
    "pages none": lambda values, arrays: arrays.update({"kv.1": arrays["kv.1"][:0]}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_values_that_no_session_has(runtime: Runtime, saved: Path, name: str) -> None:
    file = read_session(saved)
    CHANGES[name](file.values, file.arrays)
    write_session(saved, file.values, file.arrays)
    with pytest.raises(CheckpointError, match=r"a\.session: ") as caught:
        Session.restore(runtime, saved)
    assert len(str(caught.value)) < 500


def test_other_weights_are_named(model: TextModel, saved: Path, tmp_path: Path) -> None:
    other = make_runtime(tmp_path, model, identity={"weights": "tiny", "shell": "ff"})
    with pytest.raises(CheckpointError, match=r"other weights \(different: shell\)"):
        Session.restore(other, saved)


def test_missing_files_are_an_os_error(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Session.restore(runtime, tmp_path / "absent")
