"""The few figures of the README: one column a size, the rival being llama.cpp's faster file.

In: the newest records by suite. Out: a Markdown table; rows for which there is no measurement are
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .summary import STATES, Row, rows

SIZES = ("e2b", "e4b")
RIVALS = ("llama_cpp", "llama_cpp_mix")
Found = Mapping[str, Sequence[Mapping[str, Any]]]


def case(found: Found, suite: str, title: str) -> dict[str, Row]:
    """Contender -> row of the case with this title; empty if it was not measured."""
    for one in found.get(suite, []):
        if one["title"] == title:
            return {row.contender: row for row in rows(one)}
    return {}


def rival(by_name: Mapping[str, Row]) -> Row | None:
    """llama.cpp on the file on which it was faster."""
    there = [by_name[name] for name in RIVALS if name in by_name]
    return max(there, key=lambda row: row.rate.median) if there else None


def times(row: Row | None) -> str:
    """How many times faster ours is: in slow and in fast rounds where both are known."""
    if row is None or "all" not in row.ratios:
        return ""
    by_state = [row.ratios[state].median for state in STATES[1:] if state in row.ratios]
    if len(by_state) == 2:
        return " / ".join(f"{value:.1f}x" for value in by_state)
    return f"{row.ratios['all'].median:.1f}x"


def share(row: Row | None) -> str:
    if row is None or not row.roofline:
        return ""
    by_state = [row.roofline[state].median for state in STATES[1:] if state in row.roofline]
    if len(by_state) == 2:
        return " / ".join(f"{value:.0%}" for value in by_state)
    return f"{row.roofline['all'].median:.0%}"


def rate(row: Row | None) -> str:
    return f"{row.rate.median:.3g}" if row else ""


def seconds(by_name: Mapping[str, Row]) -> str:
    other = rival(by_name)
    if "ours" not in by_name:
        return ""
    text = f"{by_name['ours'].seconds.median:.1f} s"
    return text + (f" ({other.seconds.median:.1f} s)" if other else "")


def gigabytes(by_name: Mapping[str, Row]) -> str:
    there = [by_name[name].resident_bytes for name in RIVALS if name in by_name]
    if "ours" not in by_name:
        return ""
    text = f"{by_name['ours'].resident_bytes / 1e9:.2f} GB"
    return text + (f" ({min(there) / 1e9:.2f} GB)" if there else "")


def table(found: Found) -> str:
    """The table, or nothing if no case was measured."""
    decode, prefill = "{} decode 64 at 512", "{} prefill 512"
    lines: list[tuple[str, str, str, Callable[[dict[str, Row]], str]]] = [
        ("Decode, tokens/s", "decode", decode, lambda r: rate(r.get("ours"))),
        ("… compared with llama.cpp", "decode", decode, lambda r: times(rival(r))),
        ("… share of the read bandwidth", "decode", decode, lambda r: share(r.get("ours"))),
        ("Prompt of 512, tokens/s", "prefill", prefill, lambda r: rate(r.get("ours"))),
        ("… compared with llama.cpp", "prefill", prefill, lambda r: times(rival(r))),
        ("… compared with transformers, bf16", "prefill", prefill,
         lambda r: times(r.get("transformers_cpu"))),
        ("Cold start to first token (llama.cpp)", "load",
         "{} cold start to first token of 16", seconds),
        ("Resident while decoding at 2,048 (llama.cpp)", "memory",
         "{} resident at context 2048", gigabytes),
    ]  # fmt: skip
    text = []
    for label, suite, title, show in lines:
        cells = [show(case(found, suite, title.format(size))) for size in SIZES]
        if any(cells):
            text.append(f"| {label} | {' | '.join(cells)} |")
    if not text:
        return ""
    head = f"| 4-bit weights, {threads(found)} threads | E2B | E4B |\n|---|---|---|\n"
    return head + "\n".join(text) + "\n\n" + note(found)


def threads(found: Found) -> int:
    return int(next(one for records in found.values() for one in records)["document"]["threads"])


def note(found: Found) -> str:
    """What the figures stand for, with the machine they come from."""
    first = next(one for records in found.values() for one in records)
    cpu = first["document"]["machine"]["cpu"]
    return (
        f"Full-size random weights, {cpu}, medians of interleaved rounds, llama.cpp on its fastest "
        "Q4_0 file. Two values: while the memory of the shared machine was slow / fast."
    )
