"""A tiny checkpoint to try every command on, as it is and packed; a home that is thrown away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.program import matryo
from helpers.random_weights import TEXT_VOCAB
from helpers.readable import make_readable


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A Hugging Face directory with text and the plans small, medium and large. Read only."""
    return make_readable(tiny_checkpoint, tmp_path_factory.mktemp("readable") / "tiny")


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The same, packed by `matryo convert` to f32. Read only."""
    directory = tmp_path_factory.mktemp("packed")
    done = matryo(
        "convert", checkpoint, directory / "tiny", "--weights", "f32", home=directory / "home"
    )
    assert done.returncode == 0, done.stderr
    return directory / "tiny"


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The same as it is, but an answer does not end by itself: the end token is one that is never
    chosen, and the context is longer than what fits unread into a terminal. Read only.
    """
    directory = tmp_path_factory.mktemp("endless") / "tiny"
    make_readable(tiny_checkpoint, directory, eos=(TEXT_VOCAB,))
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32768}))
    return directory
