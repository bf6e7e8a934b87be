"""One table of the report a file: which contenders, which cases, what the columns mean.

Each module has `TITLE`, `EXPLANATION` (sentences for the report), `CONTENDERS`, `ROUNDS` (default),
`FRESH` (a new process for every case, where an earlier case would spoil the measurement), `MOST`
(last round of contenders that are too slow for all of them) and `cases(sizes) -> list[Case]`.
"""

from __future__ import annotations

NAMES = (
    "load", "prefill", "decode", "ttft", "memory", "elastic", "kernels", "picture", "sovit",
    "sound", "stream", "training",
)  # fmt: skip
