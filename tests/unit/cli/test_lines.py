"""Typed lines: completion of commands, continuation, Ctrl-C and Ctrl-D."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from matryo.cli import lines

COMMANDS = ["/size", "/stats", "/save", "/help"]


@pytest.mark.parametrize(
    ("text", "found"),
    [("/s", ["/size", "/stats", "/save"]), ("/h", ["/help"]), ("/x", []), ("", []), ("size", [])],
)
def test_commands_are_completed(text: str, found: list[str]) -> None:
    completed = [lines.complete(COMMANDS, text, state) for state in range(len(found) + 1)]
    assert completed == [*found, None]


def typed(monkeypatch: pytest.MonkeyPatch, *keys: str | type[BaseException]) -> list[str]:
    """The messages that come from what is typed: lines, KeyboardInterrupt, EOFError."""
    waiting: Iterator[Any] = iter([*keys, EOFError])

    def answer(_prompt: str) -> str:
        key = next(waiting)
        if isinstance(key, str):
            return key
        raise key

    monkeypatch.setattr("builtins.input", answer)
    return list(lines.read_lines(COMMANDS))


def test_a_backslash_goes_on_in_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed(monkeypatch, "one\\", "two\\", "three", "four") == ["one\ntwo\nthree", "four"]


def test_ctrl_c_drops_the_whole_message(monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed(monkeypatch, "one\\", KeyboardInterrupt, "two") == ["two"]


def test_empty_lines_are_no_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed(monkeypatch, "", "  ", " a ") == ["a"]
