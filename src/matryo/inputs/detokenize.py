"""Text from tokens as they come.

In: token ids one by one. Out: pieces of text that never contain half a character and that joined
are exactly the text of all ids. Bytes that are no UTF-8 become U+FFFD, one for each broken
sequence, as Unicode recommends.
"""

from __future__ import annotations

import codecs
from typing import Protocol


class TokenSource(Protocol):
    """What a detokenizer needs to know of a tokenizer."""

    strips_first_space: bool

    def bytes_of(self, token: int) -> bytes:
        """The bytes a token adds."""


class Detokenizer:
    """Joins the bytes of tokens and lets whole characters out."""

    def __init__(self, tokenizer: TokenSource, *, continues: bool = False) -> None:
        """`continues`: the tokens follow others, so that a leading space is a space."""
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._strip_first = tokenizer.strips_first_space and not continues

    def add(self, token: int) -> str:
        """Take one token; return the text that is complete with it."""
        new = self._tokenizer.bytes_of(token)
        if not new:
            return ""
        text = self._decoder.decode(new)
        if self._strip_first and text:
            text = text.removeprefix(" ")
            self._strip_first = False
        return text

    def finish(self) -> str:
        """Return what an unfinished character leaves; the detokenizer then starts anew."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text
