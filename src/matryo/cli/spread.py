"""One figure measured in several rounds: its median and how far the rounds lay apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """Values of one figure in the order of the rounds, at least one."""

    rounds: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError if there are no values."""
        if not values:
            raise ValueError("a spread needs at least one value")
        return cls(tuple(float(value) for value in values))

    @property
    def median(self) -> float:
        """The middle value."""
        return float(median(self.rounds))

    def format(self, digits: int = 1, factor: float = 1.0) -> str:
        """`12.3 (11.9-12.8)`: the median, the lowest and the highest, each times `factor`."""
        low, middle, high = (
            f"{factor * value:.{digits}f}"
            for value in (min(self.rounds), self.median, max(self.rounds))
        )
        return middle if low == high else f"{middle} ({low}-{high})"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "median": self.median,
            "low": min(self.rounds),
            "high": max(self.rounds),
            **asdict(self),
        }
