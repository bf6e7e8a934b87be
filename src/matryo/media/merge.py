"""Which soft ids of a prompt belong to which picture or clip.

In: token ids, the embeddings of pictures and of clips in the order of the prompt. Out: `Embeddings`
for the engine. Every picture and clip takes the next soft ids of its kind; none may be left over.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from matryo.engine import Embeddings
from matryo.errors import InputError
from matryo.tower_config import MediaIds

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


def check_count(ids: I32, media: MediaIds, wanted: int, count: int, word: str) -> None:
    """Raises InputError unless the prompt has the soft ids of exactly `count` pictures or clips.

    wanted: soft ids of all of them
    """
    there = int(np.count_nonzero(ids == media.soft))
    if there != wanted:
        raise InputError(
            f"{count} {word} need {wanted} soft tokens (id {media.soft}), the prompt has {there}: "
            f"put {media.count} for each picture or clip, between ids {media.begin} and {media.end}"
        )


def merged(ids: I32, parts: Sequence[tuple[MediaIds, Sequence[F32], str]]) -> Embeddings | None:
    """Embeddings in their places; None if there are none.

    parts: for each kind its ids, the embeddings (n, d) in order, and the word for messages
    Raises InputError if their numbers do not match.
    """
    rows: list[I32] = []
    values: list[F32] = []
    for media, embeddings, word in parts:
        wanted = sum(len(one) for one in embeddings)
        check_count(ids, media, wanted, len(embeddings), word)
        rows.append(np.flatnonzero(ids == media.soft).astype(np.int32))
        values += embeddings
    if not values:
        return None
    places, stacked = np.concatenate(rows), np.concatenate(values)
    order = np.argsort(places, kind="stable")
    return Embeddings(places[order], np.ascontiguousarray(stacked[order]))
