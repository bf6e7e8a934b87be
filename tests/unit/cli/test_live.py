"""The status line appears below the text and is gone before more text comes."""

from __future__ import annotations

import io

import pytest

from matryo.cli.live import LiveLine


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def capable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")


def test_a_file_gets_the_text_and_no_status() -> None:
    out, err = io.StringIO(), io.StringIO()
    with LiveLine(out, err) as line:
        line.write("one ")
        line.status(lambda: "12 tokens/s")
        line.write("two")
    assert out.getvalue() == "one two"
    assert err.getvalue() == ""


def test_the_status_is_erased_before_text_and_at_the_end() -> None:
    screen = Terminal()  # stdout and stderr are one terminal
    with LiveLine(screen, screen) as line:
        line.write("one ")
        line.status(lambda: "12 tokens/s")
        line.write("two")
    before, after = screen.getvalue().split("12 tokens/s")
    assert before.startswith("one \x1bD")
    assert after.endswith("\x1b8\x1b[Jtwo")


def test_the_status_goes_to_the_terminal_when_the_answer_goes_to_a_file() -> None:
    out, err = io.StringIO(), Terminal()
    with LiveLine(out, err) as line:
        line.write("text")
        line.status(lambda: "s\x1b[2Jtatus" + "!" * 100)
    assert out.getvalue() == "text"
    assert "\x1b[2J" not in err.getvalue()
    assert err.getvalue().count("!") < 40
    assert err.getvalue().endswith("\r\x1b[K")


def test_no_status_at_the_right_edge() -> None:
    screen = Terminal()
    with LiveLine(screen, screen) as line:
        line.write("日" * 20)  # forty columns: the cursor waits to wrap
        line.status(lambda: "status")
    assert "status" not in screen.getvalue()


def test_a_dumb_terminal_gets_no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    err = Terminal()
    with LiveLine(io.StringIO(), err) as line:
        line.status(lambda: "status")
    assert err.getvalue() == ""
