"""A new process opens the checkpoint and gives the first token of a 16-token prompt; cold = page
cache dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case

TITLE = "Start to first token"
EXPLANATION = (
    "Wall time of a whole process, from its start to the first token behind 16 prompt tokens. "
    "Cold: the checkpoint's pages were dropped from the page cache before (the hypervisor may "
    "still cache the disk). Ours starts Python and opens the tokenizer; llama.cpp is llama-bench "
    "without warm-up, which loads its tokenizer but does not use it."
)
CONTENDERS: tuple[str, ...] = ("ours", "llama_cpp", "llama_cpp_mix")
ROUNDS = 5
FRESH = True
MOST: dict[str, int] = {}


def cases(sizes: Sequence[str]) -> list[Case]:
    return [Case("start", size, prompt=16, cold=cold) for size in sizes for cold in (True, False)]
