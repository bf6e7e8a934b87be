"""Caption files, byte for byte."""

from __future__ import annotations

import pytest

from matryo.speech.captions import Caption, clock, formatted, header

FIRST = Caption(0.0, 1.5, "Hello <b>you</b> & me")
LATE = Caption(3661.2344, 3725.9996, "one\n\n  two --> three \n", "uno")


def test_srt() -> None:
    assert header("srt") == ""
    assert formatted(FIRST, 1, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello <b>you</b> & me\n\n"
    )
    late = Caption(LATE.start_s, LATE.end_s, LATE.text)
    assert formatted(late, 12, "srt") == (
        "12\n01:01:01,234 --> 01:02:06,000\none\ntwo -> three\n\n"
    )


def test_vtt() -> None:
    assert header("vtt") == "WEBVTT\n\n"
    assert formatted(FIRST, 1, "vtt") == (
        "00:00:00.000 --> 00:00:01.500\nHello &lt;b&gt;you&lt;/b&gt; &amp; me\n\n"
    )
    late = Caption(LATE.start_s, LATE.end_s, LATE.text)
    assert formatted(late, 2, "vtt") == ("01:01:01.234 --> 01:02:06.000\none\ntwo --&gt; three\n\n")


def test_text_is_one_line_a_caption() -> None:
    assert header("text") == ""
    assert formatted(FIRST, 1, "text") == "Hello <b>you</b> & me\n"
    assert formatted(Caption(0, 1, "a\n\nb"), 1, "text") == "a b\n"


@pytest.mark.parametrize("kind", ["text", "srt", "vtt"])
def test_the_translation_is_what_is_shown(kind: str) -> None:
    shown = formatted(LATE, 1, kind)  # type: ignore[arg-type]
    assert "uno\n" in shown and "two" not in shown


def test_json_has_both_and_rounds_times() -> None:
    assert LATE.to_json() == {
        "start_s": 3661.234, "end_s": 3726.0, "text": LATE.text, "translation": "uno",
    }  # fmt: skip
    assert FIRST.to_json() == {"start_s": 0.0, "end_s": 1.5, "text": FIRST.text}


def test_no_caption_lasts_no_time() -> None:
    assert "00:00:02,000 --> 00:00:02,001" in formatted(Caption(2.0, 2.0, "x"), 1, "srt")


@pytest.mark.parametrize(("seconds", "text"), [(0.9, "0:00"), (83, "1:23"), (3723.5, "1:02:03")])
def test_the_clock_is_short(seconds: float, text: str) -> None:
    assert clock(seconds) == text
