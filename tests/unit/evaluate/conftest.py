"""A tiny random model with text, open for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import matryo
from helpers.readable import make_readable
from helpers.threads import one_thread as one_thread
from matryo.loading import Model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Model]:
    directory = make_readable(tiny_checkpoint, tmp_path_factory.mktemp("evaluate") / "tiny")
    with matryo.load(directory, weights="f32") as opened:
        yield opened
