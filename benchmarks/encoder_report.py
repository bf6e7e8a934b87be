"""The report's tables about pictures and sound.

In: the newest records of the suites picture, sovit, sound and stream, and of the encoders'
agreement. Out: Markdown. Each engine is compared with ours in float32 and with ours quantised, in
the rounds that they shared.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import claims
from .cells import cell, name, ratio_cell, table
from .contenders import TITLES
from .summary import Row, by_contender, rows

Records = Sequence[Mapping[str, Any]]
F32, INT8, Q8 = "our_pictures:f32", "our_pictures:int8", "our_sound:q8"


def compared(one: Mapping[str, Any], ours: str) -> dict[str, Row]:
    """contender -> row whose ratios are to `ours`; empty if ours was not measured."""
    if ours not in by_contender(one["measurements"]):
        return {}
    return {row.contender: row for row in rows(one, ours)}


def ratio_to(found: Mapping[str, Row], contender: str) -> str:
    return ratio_cell(found[contender].ratios, "all") if contender in found else ""


def picture_table(records: Records) -> str:
    headings = ["case", "engine", "seconds", "ours f32 is faster", "ours int8 is faster",
                "resident GB", "peak GB", "rounds"]  # fmt: skip
    lines = []
    for one in records:
        to_f32, to_int8 = compared(one, F32), compared(one, INT8)
        for row in rows(one, F32):
            who = row.contender
            lines.append([
                one["title"], name(row), cell(row.seconds, 3), ratio_to(to_f32, who),
                ratio_to(to_int8, who), f"{row.resident_bytes / 1e9:.2f}",
                f"{row.peak_bytes / 1e9:.2f}", str(row.seconds.count),
            ])  # fmt: skip
    return table(headings, lines)


def sovit_table(records: Records) -> str:
    """The times, then the claims."""
    parts = [picture_table(records)]
    if found := claims.lines(records):
        explanation = (claims.__doc__ or "").split("Out: ", 1)[1].split('"Compared', 1)[1]
        parts += [
            "### Claims of the Gemma 3n guide",
            f'"Compared{explanation.rstrip()}',
            table(["claim", "on this processor", "figures"], found),
        ]
    return "\n\n".join(parts)


def sound_table(records: Records) -> str:
    headings = ["case", "engine", "seconds", "times real time", "ours q8 is faster",
                "resident GB", "peak GB", "rounds"]  # fmt: skip
    lines = []
    for one in records:
        to_q8 = compared(one, Q8)
        for row in rows(one, Q8):
            lines.append([
                one["title"], name(row), cell(row.seconds, 3), cell(row.rate, 1),
                ratio_to(to_q8, row.contender), f"{row.resident_bytes / 1e9:.2f}",
                f"{row.peak_bytes / 1e9:.2f}", str(row.seconds.count),
            ])  # fmt: skip
    return table(headings, lines)


STREAM_COLUMNS: Mapping[str, tuple[str, float]] = {
    "first_token_ms": ("first token after ms", 1),
    "lag_median_ms": ("lag, median ms", 1),
    "lag_max_ms": ("lag, most ms", 1),
    "work_median_ms": ("work, median ms", 1),
    "work_max_ms": ("work, most ms", 1),
    "state_bytes": ("state MB", 1e-6),
    "tokens": ("tokens", 1),
}


def stream_table(records: Records) -> str:
    """The worst of the rounds, so that no lag is lost in a median."""
    lines = []
    for one in records:
        for row in rows(one, Q8):
            rounds = by_contender(one["measurements"])[row.contender].values()
            worst = [
                max(float(single["result"]["details"][key]) for single in rounds)
                for key in STREAM_COLUMNS
            ]
            shown = [
                f"{value * unit:.1f}" if key != "tokens" else f"{value:.0f}"
                for value, (key, (_, unit)) in zip(worst, STREAM_COLUMNS.items(), strict=True)
            ]
            lines.append([one["title"], name(row), *shown, f"{row.resident_bytes / 1e9:.2f}"])
    headings = [title for title, _ in STREAM_COLUMNS.values()]
    return table(["case", "engine", *headings, "resident GB"], lines)


TABLES: Mapping[str, Callable[[Records], str]] = {
    "picture": picture_table,
    "sovit": sovit_table,
    "sound": sound_table,
    "stream": stream_table,
}


def agreement_section(records: Records) -> str:
    lines = []
    for one in records:
        for row in one["agreement"]:
            least = row.get("least_embedded", 0.0)  # 0 where there is no embedder
            figures = [row["reason"], "", "", ""] if row["reason"] else [
                f"{row['least_cosine']:.5f}", f"{row['mean_cosine']:.5f}",
                f"{row['largest']:.2g}", f"{least:.5f}" if least else "",
            ]  # fmt: skip
            lines.append(
                [one["size"], TITLES[row["contender"]], TITLES[one["reference"]], *figures]
            )
    headings = ["encoder", "engine", "reference", "least cosine", "mean cosine",
                "largest difference", "least cosine after the embedder"]  # fmt: skip
    doc = importlib.import_module("benchmarks.encoder_agreement").__doc__ or ""
    explanation = doc.split("Out: ", 1)[1].strip()
    return (
        f"## Agreement of the encoders\n\n{explanation[0].upper()}{explanation[1:]}\n\n"
        f"{table(headings, lines)}\n"
    )
