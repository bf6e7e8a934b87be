"""The prompt of a command: its argument, standard input, or both."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import typer

FROM_STDIN = "-"


def read_prompt(argument: str | None) -> str:
    """Return the argument with what is piped into stdin after it.

    `-` or nothing reads stdin alone. Raises typer.BadParameter if there is nothing to read,
    UnicodeDecodeError never: bytes that are not UTF-8 become replacement characters.
    """
    piped = _read_stdin() if argument == FROM_STDIN or not _stdin_is_terminal() else ""
    if argument in (None, FROM_STDIN):
        if not piped.strip():
            raise typer.BadParameter(
                "no prompt: give one as an argument or on stdin", param_hint="PROMPT"
            )
        return piped
    # An argument that is not UTF-8 arrives with lone surrogates in it, which no tokenizer takes.
    text = os.fsencode(str(argument)).decode("utf-8", errors="replace")
    return f"{text}\n\n{piped}" if piped.strip() else text


def read_piped_lines() -> Iterator[str]:
    """Lines of stdin as they come, stripped; bytes that are not UTF-8 as above."""
    if sys.stdin is None or sys.stdin.closed:
        return
    for line in iter(sys.stdin.buffer.readline, b""):
        yield line.decode("utf-8", errors="replace").strip()


def _stdin_is_terminal() -> bool:
    return sys.stdin is None or sys.stdin.closed or sys.stdin.isatty()


def _read_stdin() -> str:
    if sys.stdin is None or sys.stdin.closed:
        return ""
    return sys.stdin.buffer.read().decode("utf-8", errors="replace").rstrip("\n")
