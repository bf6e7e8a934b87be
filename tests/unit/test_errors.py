"""The exception tree and its messages."""

from __future__ import annotations

import inspect

import pytest

from matryo import errors
from matryo.errors import CapacityError, CheckpointError, MatryoError


def test_every_error_is_ours_and_documented() -> None:
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    assert len(classes) == 10
    for error in classes:
        assert issubclass(error, MatryoError) and error.__doc__
        assert error is MatryoError or error.__name__ in (errors.__doc__ or "")
        assert str(error("one sentence")) == "one sentence"


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "is broken"),
        ({"file": "a.bin"}, "a.bin: is broken"),
        ({"tensor": "q"}, "q: is broken"),
        (
            {"file": "a.bin", "tensor": "q", "expected": "F32", "got": "I8"},
            "a.bin: q: is broken (expected F32, got I8)",
        ),
        ({"got": "I8"}, "is broken (got I8)"),
    ],
)
def test_checkpoint_errors_name_the_place(place: dict[str, str], text: str) -> None:
    error = CheckpointError("is broken", **place)
    assert str(error) == text
    assert (error.file, error.tensor) == (place.get("file"), place.get("tensor"))


def test_capacity_errors_carry_both_counts() -> None:
    error = CapacityError("too long", needed=9, available=8)
    assert (error.needed, error.available) == (9, 8)
