"""Passages of equal length for measurements on text, or of random ids where weights are random.

In: a text file, or a `.jsonl` with {"text"} rows, and a model. Out: lists of ids.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

from matryo.evaluate import read_task
from matryo.evaluate.rows import TextRow
from matryo.loading import Model


def read_passages(
    model: Model, path: Path | None, length: int, count: int, seed: int = 0
) -> tuple[list[list[int]], dict[str, Any]]:
    """`count` passages of `length` ids, spread over the text, and what they are of.

    Without a text they are random. Raises SystemExit if the text is too short.
    """
    bos = [] if model.config.bos_id is None else [model.config.bos_id]
    inner = length - len(bos)
    if path is None:
        draw, most = random.Random(seed), model.config.ple_vocab_size
        return [
            [*bos, *(draw.randrange(most // 4, most) for _ in range(inner))] for _ in range(count)
        ], {"text": "random ids", "seed": seed}
    texts = [row.text for row in read_task(path).rows if isinstance(row, TextRow)]
    ids = model.tokenizer.encode("\n".join(texts))
    step = len(ids) // count
    if step < inner:
        raise SystemExit(f"error: {path} has {len(ids)} tokens; {inner * count} are needed")
    return [[*bos, *ids[start : start + inner]] for start in range(0, step * count, step)], {
        "text": path.name,
        "digest": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
    }
