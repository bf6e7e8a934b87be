"""The README's table and picture, and the markers they are written between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.between import replace_between
from benchmarks.sizes_picture import by_size, draw_sizes

from benchmarks import readme

DOCUMENT = {"threads": 2, "machine": {"cpu": "Sample CPU"}}


def repetition(number: int, contender: str, seconds: float, bandwidth: float) -> dict[str, Any]:
    details = {"needed_bytes": 1.2e9} if contender == "ours" else {}
    return {
        "round": number,
        "contender": contender,
        "result": {
            "seconds": seconds, "tokens": 64, "resident_bytes": 1_500_000_000, "peak_bytes": 0,
            "details": details,
        },
        "bandwidth_before": bandwidth,
        "bandwidth_after": bandwidth,
        "others": 0.0,
    }  # fmt: skip


def one(title: str, **seconds: float) -> dict[str, Any]:
    measurements = [
        repetition(number, name, value, bandwidth)
        for number, bandwidth in ((1, 30.0), (2, 48.0))
        for name, value in seconds.items()
    ]
    return {"title": title, "measurements": measurements, "dropped": {}, "document": DOCUMENT}


def test_the_rival_is_the_faster_file_and_states_are_apart() -> None:
    decode = one("e2b decode 64 at 512", ours=2.0, llama_cpp=6.0, llama_cpp_mix=4.0)
    text = readme.table({"decode": [decode]})
    assert "| 4-bit weights, 2 threads | E2B | E4B |" in text
    assert "| Decode, tokens/s | 32 |  |" in text
    assert "| … compared with llama.cpp | 2.0x / 2.0x |  |" in text
    assert "| … share of the read bandwidth | 128% / 80% |  |" in text
    assert "Prompt" not in text
    assert "Sample CPU" in text


def test_start_and_memory_show_the_rival_in_brackets() -> None:
    start = one("e4b cold start to first token of 16", ours=2.0, llama_cpp=9.0)
    memory = one("e4b resident at context 2048", ours=2.0, llama_cpp=9.0)
    text = readme.table({"load": [start], "memory": [memory]})
    assert "| Cold start to first token (llama.cpp) |  | 2.0 s (9.0 s) |" in text
    assert "| Resident while decoding at 2,048 (llama.cpp) |  | 1.50 GB (1.50 GB) |" in text


def test_nothing_measured_is_no_table() -> None:
    assert readme.table({}) == ""


def test_text_around_the_markers_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- x:begin -->\nold\n<!-- x:end -->\nafter\n")
    replace_between(page, "x", "new\n")
    assert page.read_text() == "before\n<!-- x:begin -->\nnew\n<!-- x:end -->\nafter\n"
    replace_between(page, "x", "newer")
    assert page.read_text() == "before\n<!-- x:begin -->\nnewer\n<!-- x:end -->\nafter\n"


@pytest.mark.parametrize("text", ["", "<!-- x:end --><!-- x:begin -->", "<!-- x:begin -->"])
def test_missing_or_turned_markers_are_an_error(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="x:begin"):
        replace_between(page, "x", "new")
    assert page.read_text() == text


def test_sizes_are_drawn_in_the_order_they_were_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figures = by_size(
        {
            "e2b: tokens/s": 20.0, "e2b: resident GB": 1.5, "30 x 12288: tokens/s": 15.0,
            "30 x 12288: resident GB": 2.0, "isa": "avx512",
        }
    )  # fmt: skip
    assert list(figures) == ["e2b", "30 x 12288"]
    draw_sizes(figures, tmp_path / "sizes.png")
    assert (tmp_path / "sizes.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_sizes({}, tmp_path / "sizes.png")
