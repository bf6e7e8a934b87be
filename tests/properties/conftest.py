"""Properties run over the native kernels: tiny models of every kind of weights, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.models import text_model
from helpers.sessions import make_runtime, text_files
from matryo import kernels
from matryo.model import TextModel
from matryo.session.runtime import Runtime

Models = Callable[[str], TextModel]


@pytest.fixture(scope="session")
def models() -> Models:
    """`models("q4")`: the same small random model with its weights stored as f32, bf16, q8 or
    q4.
    """
    made: dict[str, TextModel] = {}

    def get(kind: str) -> TextModel:
        if kind not in made:
            made[kind] = text_model("native", kind)
        return made[kind]

    return get


@pytest.fixture(params=["f32", "bf16", "q8", "q4"])
def stored(request: pytest.FixtureRequest, models: Models) -> TextModel:
    """The small model in each kind of weights."""
    return models(request.param)


@pytest.fixture
def runtime(models: Models, tmp_path: Path) -> Runtime:
    """What sessions of the f32 model share; prompts run in steps of 16."""
    return make_runtime(text_files(tmp_path), models("f32"))


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of worker threads; put back afterwards."""
    before = kernels.threads()
    yield kernels.set_threads
    kernels.set_threads(before)
