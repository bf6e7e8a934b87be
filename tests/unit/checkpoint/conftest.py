"""What tests of more than one form of a checkpoint share."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.files import write_checkpoint, write_json


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text alone: sparse and dense layers, owners and readers, three shells. Read only."""
    directory = tmp_path_factory.mktemp("hub")
    write_checkpoint(directory, dtype="BF16")
    write_json(directory / "tokenizer.json", {"model": {}})
    return directory
