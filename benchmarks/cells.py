"""How figures look in the generated tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .contenders import TITLES
from .ratios import Spread, crosses_one
from .summary import Row


def cell(value: Spread, digits: int = 2) -> str:
    """Median [lower quartile, upper quartile]."""
    if value.count == 1:
        return f"{value.median:.{digits}f}"
    return f"{value.median:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def ratio_cell(found: Mapping[str, Spread], label: str) -> str:
    """`1.92x [1.88, 1.97] (5)`, the count of rounds last."""
    if label not in found:
        return ""
    value = found[label]
    text = f"{value.median:.2f}x"
    if value.count > 1:
        text += f" [{value.low:.2f}, {value.high:.2f}]"
        text += ", no difference" if crosses_one(value) else ""
    return f"{text} ({value.count})"


def share_cell(found: Mapping[str, Spread], label: str) -> str:
    return f"{found[label].median:.0%} ({found[label].count})" if label in found else ""


def table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns that are empty everywhere are left out."""
    kept = [i for i in range(len(headings)) if any(line[i] for line in lines)]
    text = ["| " + " | ".join(headings[i] for i in kept) + " |", "|" + "---|" * len(kept)]
    text += ["| " + " | ".join(line[i] for i in kept) + " |" for line in lines]
    return "\n".join(text)


def name(row: Row) -> str:
    return TITLES.get(row.contender, row.contender) + (" (busy)" if row.busy else "")
