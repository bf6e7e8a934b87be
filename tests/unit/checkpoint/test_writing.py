"""A full disk is the same error whoever notices it, and nothing else is."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from matryo.checkpoint.writing import room
from matryo.errors import CapacityError, CheckpointError


def hidden_by_torch() -> None:
    """torch.save raises an error of its own while it handles the system's."""
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    finally:
        raise RuntimeError("enforce fail: unexpected pos 768 vs 662")


def full(number: int) -> None:
    raise OSError(number, "full")


def told_by_safetensors() -> None:
    raise RuntimeError("Error while serializing: I/O error: No space left (os error 28)")


@pytest.mark.parametrize(
    "fails",
    [hidden_by_torch, told_by_safetensors, lambda: full(errno.ENOSPC), lambda: full(errno.EDQUOT)],
)
def test_a_full_disk_names_the_place_and_what_to_do(fails: object) -> None:
    assert callable(fails)
    with (
        pytest.raises(CapacityError, match=r"^a/b: .*: free some space and try again$"),
        room(Path("a/b"), "try again"),
    ):
        fails()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cannot pickle"),
        OSError(errno.EACCES, "Permission denied"),
        CheckpointError("is broken (os error 28)"),
        ValueError("I/O error: Permission denied (os error 13)"),
    ],
)
def test_what_is_no_full_disk_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, room(Path("a/b"), "try again"):
        raise error
    assert caught.value is error
