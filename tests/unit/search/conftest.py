"""A tiny random model with text, and a task of short texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import matryo
from helpers.readable import make_readable
from helpers.threads import one_thread as one_thread
from matryo.evaluate import Task, read_task
from matryo.loading import Model
from matryo.search.space import Space


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Model]:
    directory = make_readable(tiny_checkpoint, tmp_path_factory.mktemp("search") / "tiny")
    with matryo.load(directory, weights="f32") as opened:
        yield opened


@pytest.fixture(scope="session")
def space(model: Model) -> Space:
    return Space.of(model)


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    rng = np.random.default_rng(5)
    file = tmp_path_factory.mktemp("task") / "texts.jsonl"
    words = ["a", "b", "the", "e", "th", "é"]
    rows = [{"text": " ".join(rng.choice(words, 8))} for _ in range(16)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_task(file)
