"""What a change of size costs inside one session, and what each size costs in the same process."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case, Kind

TITLE = "Change of size"
EXPLANATION = (
    "One process, one copy of the weights, one session: seconds for the assignment of the other "
    "size, how much longer the first token after it takes than the later ones, the rate at each "
    "size, and the resident set before and after the larger size was used. Then sizes between the "
    "two, smallest first, in one process."
)
CONTENDERS: tuple[str, ...] = ("ours",)
ROUNDS = 5
FRESH = True
MOST: dict[str, int] = {}


KINDS: tuple[Kind, ...] = ("switch", "sizes")


def cases(sizes: Sequence[str]) -> list[Case]:
    return [Case(kind, size, generate=16, context=512) for size in sizes[:1] for kind in KINDS]
