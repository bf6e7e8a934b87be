"""Token by token from ids to the text of an answer.

In: ids, and the strings that end an answer. Out: text that may be shown; never half a character,
never part of a stop string.
"""

from __future__ import annotations

from matryo.inputs.detokenize import Detokenizer
from matryo.inputs.stopping import StopMatcher
from matryo.session.runtime import Runtime


class Pieces:
    """Text of the tokens of one answer, without stop strings. Without a tokenizer: no text."""

    def __init__(self, runtime: Runtime, matcher: StopMatcher) -> None:
        self._matcher = matcher
        self._detokenizer = None
        if runtime.text.has_tokenizer or matcher.is_active:
            self._detokenizer = Detokenizer(runtime.text.tokenizer, continues=True)

    @property
    def stopped(self) -> bool:
        """Whether a stop string came."""
        return self._matcher.stopped

    def add(self, token: int) -> str:
        """Take a token; returns the text that may be shown."""
        return "" if self._detokenizer is None else self._matcher.add(self._detokenizer.add(token))

    def finish(self) -> str:
        """The text that was held back."""
        if self._detokenizer is None:
            return ""
        return self._matcher.add(self._detokenizer.finish()) + self._matcher.finish()
