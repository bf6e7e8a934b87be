"""Time to the first token of a short prompt in a process that has the model open."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case

TITLE = "Time to first token, model open"
EXPLANATION = (
    "Short prompts from an empty cache in a process that already holds the weights, as tokens a "
    "second."
)
CONTENDERS: tuple[str, ...] = ("ours", "llama_cpp", "llama_cpp_mix", "transformers_cpu")
ROUNDS = 9
FRESH = False
MOST: dict[str, int] = {}


def cases(sizes: Sequence[str]) -> list[Case]:
    return [Case("prefill", size, prompt=prompt) for prompt in (16, 128) for size in sizes]
