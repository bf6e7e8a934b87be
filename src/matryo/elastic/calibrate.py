"""Thresholds for `Escalation`, from what two sizes say about a text.

In: the uncertainty of the small size at every token and the losses of both. Out: for each share of
tokens that the large size may take, the threshold, the loss of such a mixture, and the loss of a
mixture of equal cost that takes the large size at random. Tokens are judged one by one, each size
with the cache that it wrote itself: what a cache written by the other costs is not in the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from matryo.elastic.complexity import Measure, State, Thresholds, decide, uncertainty
from matryo.errors import InputError

if TYPE_CHECKING:
    from matryo.loading import Model
    from matryo.plan import Plan

F64 = npt.NDArray[np.float64]

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
HYSTERESIS = 0.6
"""`below` lies at this quantile of what lies under `above`, so that a size is not left at once."""
FEWEST_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """Of every predicted token: the small size's uncertainty, both losses in nats; each (N,)."""

    doubt: F64
    small: F64
    large: F64


@dataclass(frozen=True, slots=True)
class Row:
    """One choice of thresholds. Losses in nats a token; share: of tokens by the large size."""

    share: float
    loss: float
    random_loss: float
    thresholds: Thresholds

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def look(
    model: Model, windows: Iterable[Sequence[int]], small: Plan, large: Plan, measure: Measure
) -> Seen:
    """Runs both sizes over windows of token ids, each on its own.

    Raises InputError if fewer than 64 tokens are predicted in all.
    """
    parts: list[tuple[F64, F64, F64]] = []
    for ids in windows:
        if len(ids) < 2:
            continue
        targets = np.asarray(ids[1:])
        of_small = model.logits(ids[:-1], plan=small)
        doubt = np.array([uncertainty(row, measure) for row in of_small])
        of_large = model.logits(ids[:-1], plan=large)
        parts.append((doubt, losses(of_small, targets), losses(of_large, targets)))
    count = sum(len(doubt) for doubt, _, _ in parts)
    if count < FEWEST_TOKENS:
        raise InputError(
            f"the text has {count} tokens to predict; thresholds need at least {FEWEST_TOKENS}"
        )
    return Seen(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def table(seen: Seen, measure: Measure, window: int = 2, dwell: int = 4) -> list[Row]:
    """Thresholds for each of `SHARES`, with what they really take and give on the same tokens."""
    means = np.convolve(seen.doubt, np.ones(window) / window)[: len(seen.doubt)]
    rows = []
    for share in SHARES:
        above = float(np.quantile(means, 1.0 - share))
        under = means[means < above]
        below = float(np.quantile(under, HYSTERESIS)) if len(under) else above
        thresholds = Thresholds(
            measure=measure, window=window, above=above, below=min(below, above), dwell=dwell
        )
        taken = replay(thresholds, seen.doubt)
        share = float(taken.mean())
        rows.append(
            Row(
                share,
                float(np.where(taken, seen.large, seen.small).mean()),
                float(share * seen.large.mean() + (1.0 - share) * seen.small.mean()),
                thresholds,
            )
        )
    return rows


def replay(thresholds: Thresholds, doubt: F64) -> npt.NDArray[np.bool_]:
    """Which tokens (N,) the large size takes."""
    state, taken = State(), np.zeros(len(doubt), np.bool_)
    for index, value in enumerate(doubt):
        state = decide(thresholds, state, float(value))
        taken[index] = state.large
    return taken


def nearest(rows: Sequence[Row], share: float) -> Row:
    """The row that takes the large size about as often as asked for."""
    return min(rows, key=lambda row: abs(row.share - share))


def losses(logits: npt.NDArray[np.float32], targets: npt.NDArray[Any]) -> F64:
    """Nats (N,) of the targets (N,) under logits (N, V)."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    chosen = wide[np.arange(len(targets)), targets]
    nats: F64 = np.log(np.exp(wide).sum(axis=1)) - chosen
    return nats
