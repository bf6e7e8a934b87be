"""A model's answer to one clip, as the events of one caption.

In: the events of a generation. Out: `CaptionEvent`s: partial ones while the answer comes, then a
whole one, or none if nothing was said.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Literal

from matryo.session.events import Event, Stats
from matryo.speech.captions import Caption, CaptionEvent
from matryo.speech.prompts import split_answer


class Answer:
    """Reads one generation; `text` is all that came until now."""

    def __init__(
        self, index: int, start_s: float, end_s: float, *, to: str | None, since: float
    ) -> None:
        """index: of the caption · to: the language of the translation, if one was asked for
        since: `time.perf_counter` when the last of the sound was there
        """
        self._index, self._start_s, self._end_s = index, start_s, end_s
        self._to, self._since = to, since
        self.text = ""
        self.is_cancelled = False

    def events(self, events: Iterable[Event], *, is_whole: bool = True) -> Iterator[CaptionEvent]:
        """Events of the caption as they come; is_whole: whether the sound has ended, so that the
        last event is a caption and not a partial one.
        """
        for event in events:
            self.text += event.text
            if event.kind == "done":
                self.is_cancelled = event.finish_reason == "cancelled"
                if is_whole and self.text.strip():
                    yield self._event("caption", event.stats)
            elif event.text:
                yield self._event("partial", event.stats)

    def _event(self, kind: Literal["partial", "caption"], stats: Stats) -> CaptionEvent:
        text, translation = split_answer(self.text, self._to)
        return CaptionEvent(
            kind,
            self._index,
            Caption(self._start_s, self._end_s, text, translation),
            self._end_s,
            time.perf_counter() - self._since,
            stats,
        )
