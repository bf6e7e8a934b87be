"""A tiny random model with text, open for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import matryo
from helpers.readable import make_readable
from matryo import kernels
from matryo.loading import Model


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Of thousands of tiny passes, threads that wait for each other would take most of the time."""
    before = kernels.threads()
    kernels.set_threads(1)
    yield
    kernels.set_threads(before)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Model]:
    directory = make_readable(tiny_checkpoint, tmp_path_factory.mktemp("evaluate") / "tiny")
    with matryo.load(directory, weights="f32") as opened:
        yield opened
