"""Memory that was freed goes back to the operating system."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import pytest

from matryo.inputs import tokenizer as module
from matryo.inputs.freed_memory import return_freed_memory
from matryo.inputs.tokenizer import Tokenizer

FILE = Path(module.__file__).parents[1] / "data" / "nano" / "tokenizer.json"


def resident_bytes() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="needs glibc's malloc_trim"
)
def test_small_pieces_below_a_living_one_are_returned() -> None:
    pieces = [bytes(2000) for _ in range(50_000)]
    last = bytes(2000)
    del pieces
    before = resident_bytes()
    return_freed_memory()
    assert resident_bytes() < before - 50_000_000
    assert len(last) == 2000


def test_only_a_large_tokenizer_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(module, "return_freed_memory", lambda: calls.append(1))
    Tokenizer.from_file(FILE)
    assert not calls
    monkeypatch.setattr(module, "MANY_BYTES", 1000)
    Tokenizer.from_file(FILE)
    assert calls == [1]
