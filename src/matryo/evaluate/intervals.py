"""Confidence intervals by the bootstrap: how much a figure would vary over other rows of the kind.

In: columns (n rows, k) whose sums make a figure, and the function that makes it. Out: the figure
and the 2.5th and 97.5th percentile of it over resampled rows. Two sizes are compared over the same
resamples, so that what is hard for both cancels out.
Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 6 and 13.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Value = Callable[[F64], F64]
"""From sums (..., k) to figures (...)."""

RESAMPLES = 1000
_COUNTS = 1 << 22  # drawn at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its 95 % confidence interval; one row has none."""

    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not a number is null."""
        return {"value": _plain(self.value), "low": _plain(self.low), "high": _plain(self.high)}

    @classmethod
    def from_samples(cls, value: float, samples: F64) -> Interval:
        """samples (R,), one a resample."""
        known = samples[np.isfinite(samples)]
        if not len(known):
            return cls(value, None, None)
        low, high = np.percentile(known, (2.5, 97.5))
        return cls(value, float(low), float(high))


class Bootstrap:
    """The same resamples of `num_rows` rows for every figure that is asked for."""

    def __init__(self, num_rows: int, seed: int, resamples: int = RESAMPLES) -> None:
        self.num_rows, self._seed, self._resamples = num_rows, seed, resamples

    def sums(self, columns: F64) -> F64:
        """columns (n, k) -> (R, k), the sums over each resample."""
        n = self.num_rows
        generator = np.random.default_rng([self._seed, n])
        out = np.empty((self._resamples, columns.shape[1]))
        step = max(1, _COUNTS // max(n, 1))
        chances = np.full(n, 1.0 / n)
        for start in range(0, self._resamples, step):
            end = min(start + step, self._resamples)
            # Row by row from one stream, so that the block size changes nothing.
            counts = generator.multinomial(n, chances, size=end - start)
            out[start:end] = counts @ columns
        return out

    def interval(self, columns: F64, value: Value) -> Interval:
        """One figure."""
        return self.combined([columns], lambda sums: value(sums[0]))

    def difference(self, ours: F64, theirs: F64, value: Value) -> Interval:
        """Our figure minus theirs, over the same rows."""
        return self.combined([ours, theirs], lambda sums: value(sums[0]) - value(sums[1]))

    def combined(self, columns: list[F64], value: Callable[[list[F64]], F64]) -> Interval:
        """Any figure of several sums over the same rows."""
        whole = float(value([one.sum(axis=0)[None] for one in columns])[0])
        if self.num_rows < 2:
            return Interval(whole, None, None)
        samples = value([self.sums(one) for one in columns])
        return Interval.from_samples(whole, samples)


def _plain(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
