"""A full disk leaves an elastic model unfinished, and says how to finish it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from matryo.checkpoint.atomic import UNFINISHED
from matryo.errors import CapacityError
from matryo.evaluate.intervals import Interval
from matryo.train.elastic_files import BEFORE, ORDERED, Report, write_elastic


class Model:
    """transformers writes through safetensors."""

    def to(self, dtype: Any) -> Model:
        return self

    def save_pretrained(self, directory: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left (os error 28)")


def test_columns_stay_apart_however_large_a_value_is() -> None:
    large = Interval(8416.42, 8260.31, 8584.59)
    found = {"w50": {"perplexity": large}, "w100": {"perplexity": Interval(1.0, 0.5, 1e9)}}
    lines = Report({"w50": 64, "w100": 128}, {BEFORE: found, ORDERED: found}).table().splitlines()
    cell = "8,416.42 [8,260.31 8,584.59]"
    assert lines[3].split(cell)[1].startswith("  ") and lines[3].count(cell) == 2
    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[1].split() == ["width", BEFORE, ORDERED]


def test_a_full_disk_is_named_and_the_model_stays_unfinished(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED).touch()
    with pytest.raises(CapacityError, match=rf"{tmp_path}: No space left.*earlier stages is kept"):
        write_elastic(Model(), None, Report({}, {}), tmp_path, "bf16")
    assert (tmp_path / UNFINISHED).exists()
