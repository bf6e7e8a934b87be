"""Reads the file llama-perplexity writes with --kl-divergence-base.

Layout (little endian): "_logits_", uint32 context, int32 vocabulary, int32 chunks, int32
tokens[context * chunks], then for each position from context / 2 to context - 2 of a chunk: float32
scale, float32 smallest log-probability, uint16 codes[vocabulary rounded up to even]; log p =
smallest + scale * code, and everything more than 16 nats below the best logit is clipped to that.
The first token of a chunk is evaluated as <bos>.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAGIC = b"_logits_"
BOS = 2


@dataclass(frozen=True)
class LogProbabilities:
    """`ids` int32 (context,), `values` float32 (positions, vocabulary): row i predicts the token
    after `first` + i.
    """

    ids: np.ndarray
    first: int
    values: np.ndarray

    def save(self, path: Path) -> None:
        np.savez(path, ids=self.ids, first=self.first, values=self.values)


def read_log_probabilities(path: Path) -> LogProbabilities:
    """The first chunk of the file. Raises ValueError if it is not such a file or is cut short."""
    data = path.read_bytes()
    if data[:8] != MAGIC:
        raise ValueError(f"{path.name} does not start with {MAGIC!r}")
    context, vocabulary, chunks = (int(value) for value in np.frombuffer(data, np.int32, 3, 8))
    ids = np.frombuffer(data, np.int32, context, 20).copy()
    ids[0] = BOS
    first = context // 2
    positions = context - 1 - first
    width = 2 * ((vocabulary + 1) // 2) + 4
    start = 20 + 4 * context * chunks
    if len(data) < start + 2 * width * positions:
        raise ValueError(f"{path.name} ends before its first chunk does")
    rows = np.frombuffer(data, np.uint16, width * positions, start).reshape(positions, width)
    scales = np.ascontiguousarray(rows[:, :4]).view(np.float32)
    values = rows[:, 4 : 4 + vocabulary] * scales[:, :1] + scales[:, 1:]
    return LogProbabilities(ids, first, values.astype(np.float32))
