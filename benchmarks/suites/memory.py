"""Resident bytes of the whole process while decoding behind 2048 tokens."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case

TITLE = "Resident memory"
EXPLANATION = (
    "Resident set of the process (everything: weights, cache, program, mapped file pages) after "
    "decoding 16 tokens behind 2048, and its peak since the start. llama-bench keeps a second copy "
    "of the cache (about 35 MB)."
)
CONTENDERS: tuple[str, ...] = ("ours", "llama_cpp", "llama_cpp_mix", "transformers_cpu")
ROUNDS = 1
FRESH = True
MOST: dict[str, int] = {}


def cases(sizes: Sequence[str]) -> list[Case]:
    return [Case("memory", size, generate=16, context=2048) for size in sizes]
