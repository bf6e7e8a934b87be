"""Counts and bytes as people read them; JSON as programs and terminals can take it."""

from __future__ import annotations

import json

import pytest

from matryo.cli.output import format_bytes, format_count, write_json


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.50 kB"), (2.5e6, "2.50 MB"), (3.217e9, "3.22 GB")],
)
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7"), (250_000, "250 k"), (8.68e6, "8.68 M"), (1.91e9, "1.91 B")]
)
def test_counts(count: float, text: str) -> None:
    assert format_count(count) == text


def test_json_is_one_line_that_a_terminal_obeys_nothing_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_json({"text": "é\x1b[2J\x9b\u202e\n"})
    written = capsys.readouterr().out
    assert written.count("\n") == 1
    assert not set(written) & {"\x1b", "\x9b", "\u202e"}
    assert json.loads(written) == {"text": "é\x1b[2J\x9b\u202e\n"}


def test_what_is_no_number_is_never_written() -> None:
    with pytest.raises(ValueError):
        write_json({"speed": float("nan")})
