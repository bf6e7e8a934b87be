"""The claims of Gemma 3n's developer guide about its picture encoder, beside what was measured.

In: the newest records of the suite `sovit`. Out: one line a claim: its words, whether this
processor reproduces it, the figures. "Compared with SoViT": MobileNet-V5 at 768 px, SoViT at
896 px, as Gemma 3n and Gemma 3 use them, in the same engine. A claim is reproduced if the best
engine reaches it, nearly if it reaches nine tenths, refuted otherwise.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .contenders import TITLES
from .summary import by_contender

NEARLY = 0.9
SPEED_QUANTISED, SPEED, FEWER_PARAMETERS, LESS_MEMORY = 13.0, 6.5, 0.46, 4.0
ENGINES = ("torch_pictures", "onnxruntime_pictures", "openvino_pictures")
INT8 = ("int8", "nncf")
Pair = tuple[str, float]


def lines(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of the table; a claim about which nothing was measured is left out."""
    at_gemma_sizes = [one for one in records if one["case"]["prompt"] == 768]
    found = [
        line(
            "13x faster, quantised", SPEED_QUANTISED,
            ratios(at_gemma_sizes, ("f32",), INT8, "seconds"),
            ratios(at_gemma_sizes, INT8, INT8, "seconds"),
        ),
        line(
            "6.5x faster, not quantised", SPEED,
            ratios(at_gemma_sizes, ("f32",), ("f32",), "seconds"), [],
        ),
        parameters(records),
        line(
            "4x less memory", LESS_MEMORY,
            ratios(at_gemma_sizes, ("f32",), INT8, "peak_bytes"),
            [*ratios(at_gemma_sizes, ("f32",), ("f32",), "peak_bytes"),
             *ratios(at_gemma_sizes, INT8, INT8, "peak_bytes")],
        ),
    ]  # fmt: skip
    return [one for one in found if one]


def ratios(
    records: Sequence[Mapping[str, Any]],
    theirs: Sequence[str],
    ours: Sequence[str],
    quantity: str,
) -> list[Pair]:
    """(what is compared, SoViT / MobileNet-V5) by engine, the best setting of each model; our
    encoder is compared with SoViT in every engine.
    """
    found: list[Pair] = []
    for one in records:
        rounds = by_contender(one["measurements"])
        for engine in ENGINES:
            sovit = best([f"{engine}:sovit_{kind}" for kind in theirs], rounds, quantity)
            own = [f"{engine}:{kind}" for kind in ours]
            for names in (own, [f"our_pictures:{kind}" for kind in ours]):
                mobilenet = best(names, rounds, quantity)
                if sovit and mobilenet:
                    label = f"{TITLES[mobilenet[0]]} against {TITLES[sovit[0]]}"
                    found.append((label, sovit[1] / mobilenet[1]))
    return found


def best(
    names: Sequence[str], rounds: Mapping[str, Mapping[int, Mapping[str, Any]]], quantity: str
) -> Pair | None:
    """The setting with the smallest median."""
    there = [
        (name, statistics.median(one["result"][quantity] for one in rounds[name].values()))
        for name in names
        if name in rounds
    ]
    return min(there, key=lambda pair: pair[1]) if there else None


def parameters(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Counted in torch; SoViT without its pooling head."""
    counts: dict[str, float] = {}
    for one in records:
        for measurement in one["measurements"]:
            details = measurement["result"]["details"]
            if "parameters" in details:
                model = "sovit" if ":sovit" in measurement["contender"] else "mobilenet"
                counts[model] = float(details["parameters"])
    if len(counts) < 2:
        return []
    share = 1 - counts["mobilenet"] / counts["sovit"]
    figures = f"{counts['mobilenet'] / 1e6:.0f} against {counts['sovit'] / 1e6:.0f} million"
    return [
        "46 % fewer parameters", verdict(share, FEWER_PARAMETERS), f"{share:.0%} fewer: {figures}"
    ]  # fmt: skip


def verdict(figure: float, claim: float) -> str:
    if figure >= claim:
        return "reproduced"
    return "nearly" if figure >= NEARLY * claim else "refuted"


def line(claim: str, wanted: float, pairs: Sequence[Pair], others: Sequence[Pair]) -> list[str]:
    """others: another reading of the claim, which is shown and does not decide."""
    if not pairs:
        return []
    shown = "; ".join(f"{label} {ratio:.1f}x" for label, ratio in pairs)
    more = "; ".join(f"{label} {ratio:.1f}x" for label, ratio in others)
    return [
        claim,
        verdict(max(ratio for _, ratio in pairs), wanted),
        shown + (f". Otherwise read: {more}" if more else ""),
    ]
