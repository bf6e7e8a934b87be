"""What a change of size costs inside one session, and what each size costs in the same process."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case

TITLE = "Change of size"
EXPLANATION = (
    "One process, one copy of the weights, one session: seconds for the assignment of the other size, how much longer "
    "the first token after it takes than the later ones, the rate at each size, and the resident set before and after "
    "the larger size was used."
)
CONTENDERS: tuple[str, ...] = ("ours",)
ROUNDS = 5
FRESH = True


def cases(sizes: Sequence[str]) -> list[Case]:
    return [Case("switch", size, generate=16, context=512) for size in sizes[:1]]
