"""Several sources of rows, mixed by their weights.

In: corpora with weights. Out: the rows of step n and how many of each source are then taken. Which
source a row comes from depends on the seed and the step alone; a source that is at its end begins
anew, shuffled otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from matryo.errors import ConfigError
from matryo.train.data import Corpus, Sample, Shuffled

_DRAW = 1  # apart from the draws of plans, which the same seed and step give


class Mixture:
    """Rows of several corpora. A position is a count for each of them."""

    def __init__(
        self, corpora: Sequence[Corpus], weights: Sequence[float], sequence: int, seed: int
    ) -> None:
        """Raises InputError if a source does not fill a row."""
        self.sources = [Shuffled(corpus, sequence, seed) for corpus in corpora]
        self._shares = np.array(weights, np.float64) / sum(weights)
        self._sequence, self._seed = sequence, seed

    @property
    def start(self) -> list[int]:
        """The position of a new run."""
        return [0] * len(self.sources)

    @property
    def num_rows(self) -> int:
        """Rows of all sources."""
        return sum(source.num_rows for source in self.sources)

    @property
    def num_tokens(self) -> int:
        """Ids of all sources."""
        return sum(len(s.corpus.tokens) + len(s.corpus.chats) for s in self.sources)

    @property
    def digest(self) -> str:
        """SHA-256 of everything."""
        digests = [source.corpus.digest for source in self.sources]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()

    def rows(
        self, step: int, position: Sequence[int], count: int
    ) -> tuple[list[tuple[int, int]], list[int]]:
        """`count` rows as (source, row), and the position behind them.

        Raises ConfigError if the position is of other sources.
        """
        if len(position) != len(self.sources):
            raise ConfigError(
                f"the run has taken rows of {len(position)} sources, the recipe has "
                f"{len(self.sources)}: choose another output"
            )
        drawn = np.zeros(count, np.int64)
        if len(self.sources) > 1:
            rng = np.random.default_rng([self._seed, step, _DRAW])
            drawn = rng.choice(len(self.sources), count, p=self._shares)
        after, found = list(position), []
        for number in map(int, drawn):
            row = self.sources[number].indices(after[number], 1)[0]
            found.append((number, row))
            after[number] += 1
        return found, after

    def sample(self, place: tuple[int, int]) -> Sample:
        """One row."""
        return self.sources[place[0]].corpus.row(place[1], self._sequence)
