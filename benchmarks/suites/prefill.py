"""Prompt tokens a second into an empty cache, until the logits of the last one exist."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case

TITLE = "Prefill"
EXPLANATION = "Tokens a second from an empty cache to the logits of the last prompt token."
CONTENDERS: tuple[str, ...] = (
    "ours",
    "llama_cpp",
    "llama_cpp_mix",
    "transformers_cpu",
    "openvino_genai",
)
ROUNDS = 9
FRESH = False
MOST: dict[str, int] = {"llama_cpp_mix": 1}


def cases(sizes: Sequence[str]) -> list[Case]:
    return [Case("prefill", size, prompt=prompt) for prompt in (512, 2048) for size in sizes]
