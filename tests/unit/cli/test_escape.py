"""Nothing that a terminal obeys passes through."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from matryo.cli.escape import escape_answer, escape_json, escape_name

OBEYED = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u202d", "\u202e"}


@given(st.text(st.characters()))
def test_an_answer_keeps_only_line_feed_and_tab(text: str) -> None:
    assert set(escape_answer(text)) & OBEYED <= {"\n", "\t"}


@given(st.text(st.characters()))
def test_a_name_is_one_line_without_control_characters(text: str) -> None:
    assert not set(escape_name(text)) & OBEYED
    assert len(escape_name(text).splitlines()) <= 1


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_survives_escaping(text: str) -> None:
    escaped = escape_json(json.dumps({"text": text}, ensure_ascii=False))
    assert not set(escaped) & OBEYED
    assert json.loads(escaped)["text"] == text


def test_ordinary_text_is_untouched() -> None:
    text = "Zażółć gęślą jaźń, 日本語 🙂\n\tשלום"
    assert escape_answer(text) == text


def test_an_escape_sequence_becomes_visible() -> None:
    assert escape_answer("a\x1b[2Jb\r\nc") == "a\\x1b[2Jb\nc"
    assert escape_name("a\nb\x9b") == "a\\x0ab\\x9b"
