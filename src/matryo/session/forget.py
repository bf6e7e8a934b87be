"""A conversation without its beginning, for a context that has become too long for the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matryo.media.prompt import Placed


def without_beginning(
    ids: Sequence[int], placed: Sequence[Placed], keep: int, bos_id: int | None
) -> tuple[list[int], list[Placed]]:
    """The last `keep` ids, behind the id that begins a text if there was one.

    A picture or clip stays or goes as a whole.
    """
    cut = max(len(ids) - keep, 0)
    cut = next((one.end for one in placed if one.start < cut < one.end), cut)
    first = [ids[0]] if cut and ids[0] == bos_id else []
    moved = cut - len(first)
    kept = [replace(one, start=one.start - moved) for one in placed if one.start >= cut]
    return [*first, *ids[cut:]], kept
