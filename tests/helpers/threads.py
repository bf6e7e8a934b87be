"""How many threads the kernels of a test use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from matryo import kernels


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Of thousands of tiny passes, threads that wait for each other would take most of the time."""
    before = kernels.threads()
    kernels.set_threads(1)
    yield
    kernels.set_threads(before)
