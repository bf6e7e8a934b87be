"""One status line below the text that is being written.

In: the text of an answer piece by piece and a status now and then. Out: the text on stdout, the
status on stderr, and only if stderr is a terminal that understands escape sequences. When both are
the same terminal the status lives on the line below the cursor: it is drawn there, the cursor
returns to the end of the text, and everything below the cursor is erased before more text comes.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from matryo.cli.escape import escape_answer, escape_name

REDRAW_S = 0.2  # seldom enough to be read and to cost nothing beside a decode step

# Make room below without moving (index, cursor up), save the cursor, go down, and come back. IND
# (ESC D) keeps the column where a line feed would return it.
_BELOW = "\x1bD\x1b[A\x1b7\x1bD\r\x1b[2m{status}\x1b[0m\x1b[K\x1b8"
_ERASE_BELOW = "\x1b[J"
_REMARK = "\x1b[2m{text}\x1b[0m\n"
_HERE = "\r\x1b[2m{status}\x1b[0m\x1b[K"
_ERASE_HERE = "\r\x1b[K"


def understands_escapes(stream: TextIO) -> bool:
    """Whether a status line may be drawn on this stream."""
    return stream.isatty() and os.name == "posix" and os.environ.get("TERM", "dumb") != "dumb"


class LiveLine:
    """Writes an answer to `out` and a status line to `err`; leaving the context erases the line."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self.visible = understands_escapes(self._err)
        self._below = self.visible and self._out.isatty()
        self._drawn = False
        self._drawn_at = 0.0
        self._column = 0
        self._unfinished = True

    @property
    def is_shared(self) -> bool:
        """Whether text and status go to one terminal."""
        return self._below

    def __enter__(self) -> LiveLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.erase()

    def write(self, text: str) -> None:
        """Write a piece of the answer; control characters are written visibly."""
        text = escape_answer(text)
        if not text:
            return
        self.erase()
        self._unfinished = not text.endswith("\n")
        self._out.write(text)
        self._out.flush()
        if self._below:
            self._track(text)

    def end_of_answer(self) -> None:
        """End the last line of the answer if it is not ended."""
        if self._unfinished:
            self.write("\n")

    def remark(self, text: str) -> None:
        """A dim line on stderr after the answer; nothing if stderr is not a terminal."""
        if self.visible:
            self.erase()
            self._err.write(_REMARK.format(text=escape_name(text)))
            self._err.flush()

    def status(self, make: Callable[[], str]) -> None:
        """Draw the status that `make` returns, at most every `REDRAW_S` seconds."""
        now = time.monotonic()
        if not self.visible or now - self._drawn_at < REDRAW_S:
            return
        columns = shutil.get_terminal_size().columns
        # At the right edge the terminal holds a pending wrap that moving the cursor would lose.
        if self._below and self._column % columns == 0 and self._column:
            return
        status = escape_name(make())[: columns - 1]
        self._err.write((_BELOW if self._below else _HERE).format(status=status))
        self._err.flush()
        self._drawn, self._drawn_at = True, now

    def erase(self) -> None:
        """Remove the status line if it is on the screen."""
        if self._drawn:
            self._err.write(_ERASE_BELOW if self._below else _ERASE_HERE)
            self._err.flush()
            self._drawn = False

    def _track(self, text: str) -> None:
        from rich.cells import cell_len

        _, newline, last = text.rpartition("\n")
        if newline:
            self._column = 0
        self._column += cell_len(last.expandtabs(8))
