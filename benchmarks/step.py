"""A part of the whole measurement that can be done by itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Some cases of a suite. `seconds` is what it takes on a quiet machine of the class it was
    written on, `quiet` whether its figures are times.
    """

    name: str
    suite: str
    sizes: tuple[str, ...]
    contenders: tuple[str, ...]
    rounds: int
    seconds: int
    only: str = ""
    quiet: bool = True
