"""64 tokens, one after another, behind a short and a long context."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case

TITLE = "Decode"
EXPLANATION = (
    "Tokens a second, one at a time, behind a cached context. Ours includes sampling, detokenising "
    "and the Python session; llama-bench feeds random ids and does neither. Percentages are the "
    "bytes a token needs (weights read, activation sparsity counted, plus keys and values) times "
    "the rate, over the read bandwidth measured beside it."
)
CONTENDERS: tuple[str, ...] = (
    "ours",
    "llama_cpp",
    "llama_cpp_mix",
    "transformers_cpu",
    "openvino_genai",
)
ROUNDS = 9
FRESH = False
MOST: dict[str, int] = {"llama_cpp_mix": 2, "transformers_cpu": 1}


def cases(sizes: Sequence[str]) -> list[Case]:
    return [
        Case("decode", size, generate=64, context=context)
        for context in (512, 8192)
        for size in sizes
    ]
