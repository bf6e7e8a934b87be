"""The rows of one forward pass: tokens of one sequence, or of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from matryo.errors import InputError
from matryo.model.cache import KVCache

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """T rows; those of one sequence are neighbours, ascending in position, and start where its
    cache ends.

    ids, positions, sequences (T,) int32: sequences[i] indexes `caches`. embeddings (n, d) float32
    replace the token embedding of the n rows `rows`, or of every row if `rows` is None (image or
    audio features, already merged and not scaled); the ids still choose the per-layer inputs.
    """

    ids: I32
    positions: I32
    sequences: I32
    caches: tuple[KVCache, ...]
    embeddings: F32 | None = None
    rows: I32 | None = None

    @classmethod
    def of(
        cls,
        parts: Sequence[tuple[Sequence[int] | I32, int, KVCache]],
        embeddings: F32 | None = None,
        rows: I32 | None = None,
    ) -> Self:
        """One (ids, position of the first id, cache) a sequence."""
        ids = [np.asarray(part[0], np.int32) for part in parts]
        positions = [
            np.arange(start, start + len(i), dtype=np.int32)
            for i, (_, start, _) in zip(ids, parts, strict=True)
        ]
        sequences = np.repeat(np.arange(len(parts), dtype=np.int32), [len(i) for i in ids])
        caches = tuple(cache for _, _, cache in parts)
        return cls(
            np.concatenate(ids), np.concatenate(positions), sequences, caches, embeddings, rows
        )

    @classmethod
    def step(cls, token: int, position: int, cache: KVCache) -> Self:
        """One token of one sequence, as decoding needs it."""
        zero = np.zeros(1, np.int32)
        return cls(np.array([token], np.int32), np.array([position], np.int32), zero, (cache,))

    def check(self, owners: tuple[int, ...], vocab_size: int, hidden_size: int) -> None:
        """Raises InputError if an id, a position, a cache or the embeddings do not fit together."""
        if not len(self.ids) == len(self.positions) == len(self.sequences) > 0:
            raise InputError(
                f"{len(self.ids)} ids, {len(self.positions)} positions: expected as many, at "
                "least one"
            )
        low, high = int(self.ids.min()), int(self.ids.max())
        if low < 0 or high >= vocab_size:
            raise InputError(
                f"token id {low if low < 0 else high} is outside the vocabulary of {vocab_size}"
            )
        self._check_positions()
        for cache in self.caches:
            if cache.owners != owners:
                raise InputError(
                    "a cache was made for a plan with other K/V layers; start again from the "
                    "token ids"
                )
        if self.embeddings is not None:
            self._check_embeddings(self.embeddings, hidden_size)

    def last_rows(self) -> I32:
        """The last row of every sequence, in order."""
        ends = (
            np.flatnonzero(np.diff(self.sequences)) if len(self.ids) > 1 else np.zeros(0, np.int64)
        )
        return np.append(ends, len(self.ids) - 1).astype(np.int32)

    def _check_positions(self) -> None:
        if len(self.caches) == 1:
            starts = [0]
        else:
            starts = [0, *(self.last_rows()[:-1] + 1).tolist()]
            if not np.array_equal(self.sequences[starts], np.arange(len(self.caches))):
                raise InputError(
                    "rows of one sequence must be neighbours, in the order of the caches"
                )
        for cache, start, end in zip(
            self.caches, starts, [*starts[1:], len(self.ids)], strict=True
        ):
            first, last = int(self.positions[start]), int(self.positions[end - 1])
            if first != cache.length or last - first != end - start - 1 or last >= cache.reserved:
                raise InputError(
                    f"positions {first}..{last} for {end - start} tokens do not continue a cache "
                    f"of {cache.length} "
                    f"tokens with room up to {cache.reserved}"
                )
            if end - start > 2 and (np.diff(self.positions[start:end]) != 1).any():
                raise InputError("positions of one sequence must ascend one by one")

    def _check_embeddings(self, embeddings: F32, hidden_size: int) -> None:
        rows = np.arange(len(self.ids), dtype=np.int32) if self.rows is None else self.rows
        if embeddings.dtype != np.float32 or embeddings.shape != (len(rows), hidden_size):
            raise InputError(
                f"embeddings are {embeddings.dtype} {embeddings.shape}; expected float32 "
                f"({len(rows)}, {hidden_size})"
            )
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self.ids):
            raise InputError(f"embedding rows must lie in 0..{len(self.ids) - 1}")
