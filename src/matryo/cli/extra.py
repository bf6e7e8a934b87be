"""Imports of the training extra, which may not be installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from matryo.cli.outcome import CommandError


@contextmanager
def training() -> Iterator[None]:
    """Imports inside the block may fail; the error then says what to install."""
    try:
        from matryo.train import importable

        importable.install()
        yield
    except ImportError as error:
        needed = f"training needs {error.name}" if error.name else f"training cannot start: {error}"
        raise CommandError(f"{needed}; pip install 'matryo[train]'") from error
