"""A full disk leaves an elastic model unfinished, and says how to finish it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from matryo.checkpoint.atomic import UNFINISHED
from matryo.errors import CapacityError
from matryo.train.elastic_files import Report, write_elastic


class Model:
    """transformers writes through safetensors."""

    def to(self, dtype: Any) -> Model:
        return self

    def save_pretrained(self, directory: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left (os error 28)")


def test_a_full_disk_is_named_and_the_model_stays_unfinished(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED).touch()
    with pytest.raises(CapacityError, match=rf"{tmp_path}: No space left.*earlier stages is kept"):
        write_elastic(Model(), None, Report({}, {}), tmp_path, "bf16")
    assert (tmp_path / UNFINISHED).exists()
