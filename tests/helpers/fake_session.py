"""A session that answers from a list, for tests of what is built on sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matryo.engine import Cancel
from matryo.sampling import Sampling
from matryo.session.events import Event, Stats

STATS = Stats(10, 0, 100.0, 1, 10.0, 0.1)


class FakeSession:
    """Says the next of `answers` word by word; `asked` are the prompts it was given."""

    def __init__(
        self, answers: Sequence[str], on_word: Callable[[str], None] = lambda word: None
    ) -> None:
        self._answers, self._on_word = list(answers), on_word
        self.asked: list[list[Mapping[str, Any]]] = []
        self.prefilled: list[list[Mapping[str, Any]]] = []

    def prefill(self, prompt: Sequence[Mapping[str, Any]], *, cancel: Cancel | None = None) -> None:
        self.prefilled.append(list(prompt))

    def generate(
        self,
        prompt: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int,
        sampling: Sampling | None,
        cancel: Cancel | None,
    ) -> Iterator[Event]:
        assert max_tokens > 0
        self.asked.append(list(prompt))
        words = self._answers.pop(0).split(" ")
        for index, word in enumerate(words):
            text = word if index == 0 else f" {word}"
            self._on_word(word)
            yield Event("token", text, 7, index, "full", None, STATS)
            if cancel is not None and cancel.is_set():
                yield Event("done", "", 7, index + 1, "full", "cancelled", STATS)
                return
        yield Event("done", "", 1, len(words), "full", "stop", STATS)
