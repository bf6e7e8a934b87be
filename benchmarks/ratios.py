"""Statistics of interleaved rounds: ratios per round, their median and interquartile range, split
by bandwidth state.

In: values of two contenders measured in the same round. Out: `Ratio`. A machine whose memory
bandwidth has two states gives two populations, so rounds are sorted into `slow`, `fast` and `mixed`
by the bandwidth measured beside them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FAST_FROM = 37.0
"""GB/s of a two-thread read that separates the states of the machine class this was written on."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of `count` values."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Quartiles by linear interpolation (inclusive); a single value is its own quartiles.

    Raises ValueError for an empty sequence.
    """
    if not values:
        raise ValueError("no values to summarise")
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high, len(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """How many times more we reach, by round. Raises ValueError if the rounds do not pair up."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds of ours against {len(theirs)} of theirs")
    return [a / b for a, b in zip(ours, theirs, strict=True) if b > 0]


def crosses_one(ratio: Spread) -> bool:
    """True if the interquartile range includes 1: no difference can be claimed."""
    return ratio.low <= 1.0 <= ratio.high


def state_of(bandwidths: Sequence[float]) -> str:
    """`slow` or `fast` if every measurement of the round says so, `mixed` otherwise (also without
    measurements).
    """
    if bandwidths and all(value >= FAST_FROM for value in bandwidths):
        return "fast"
    if bandwidths and all(value < FAST_FROM for value in bandwidths):
        return "slow"
    return "mixed"
