"""Stop strings in a stream of text.

In: pieces of text. Out: the same text, cut before the first stop string, holding back only what
could still become one.
"""

from __future__ import annotations

from collections.abc import Iterable

from matryo.errors import InputError


class StopMatcher:
    """Lets text through until a stop string appears, however the pieces split it."""

    def __init__(self, stops: Iterable[str]) -> None:
        """Raises InputError for an empty stop string."""
        self._stops = tuple(stops)
        if not all(self._stops):
            raise InputError(
                "a stop string is empty: it would stop before the first token; leave it out"
            )
        self._held = ""
        self.stopped = False

    @property
    def is_active(self) -> bool:
        """Whether there is any stop string."""
        return bool(self._stops)

    def add(self, text: str) -> str:
        """Take a piece; return what certainly stands before any stop string. After a stop:
        nothing.
        """
        if self.stopped or not self._stops:
            return "" if self.stopped else text
        self._held += text
        # The stop string that is complete first wins, so that the result does not depend on how the
        # text was split.
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            _, start = min(found)
            out, self._held = self._held[:start], ""
            return out
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out

    def finish(self) -> str:
        """Return the text held back; no more is to come."""
        out, self._held = self._held, ""
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`, and is not all of it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
