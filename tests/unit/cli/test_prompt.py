"""Standard input composes with the prompt."""

from __future__ import annotations

import io

import pytest
import typer

from matryo.cli.prompt import read_prompt


class Stdin(io.TextIOWrapper):
    """A pipe, or a terminal nobody types into."""

    def __init__(self, data: bytes, *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data))
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(
    ("argument", "piped", "expected"),
    [
        ("Say hello", b"", "Say hello"),
        ("Summarise:", b"a text\n", "Summarise:\n\na text"),
        ("-", b"a text\n", "a text"),
        (None, b"a text", "a text"),
        ("-", b"caf\xe9", "caf\ufffd"),
    ],
)
def test_composition(
    monkeypatch: pytest.MonkeyPatch, argument: str | None, piped: bytes, expected: str
) -> None:
    monkeypatch.setattr("sys.stdin", Stdin(piped))
    assert read_prompt(argument) == expected


def test_a_terminal_is_not_read_beside_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Stdin(b"never read", terminal=True))
    assert read_prompt("Hello") == "Hello"


@pytest.mark.parametrize("argument", [None, "-"])
def test_no_prompt_is_usage(monkeypatch: pytest.MonkeyPatch, argument: str | None) -> None:
    monkeypatch.setattr("sys.stdin", Stdin(b" \n"))
    with pytest.raises(typer.BadParameter):
        read_prompt(argument)
