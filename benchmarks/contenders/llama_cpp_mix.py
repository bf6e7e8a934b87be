"""llama.cpp on what llama-quantize makes by default: layers in Q4_0, head and PLE table in Q6_K.

The same program as `llama_cpp`, another file: whichever is faster at something is the rival there.
"""

from __future__ import annotations

from ..case import Options
from . import llama_cpp
from .llama_cpp import MIX, State, close, run

__all__ = ["available", "close", "load", "run"]


def available(options: Options) -> tuple[bool, str]:
    return llama_cpp.available(options, MIX)


def load(options: Options) -> State:
    return State(options, MIX)
