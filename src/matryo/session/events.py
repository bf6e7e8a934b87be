"""What a generation says while it runs: one stream of `Event`s for every reader (program, command
line, server, test).

In: times and counts of a generation. Out: frozen events, each with the running figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["token", "size", "done"]
FinishReason = Literal["stop", "stop_string", "length", "context", "cancelled"]


@dataclass(frozen=True, slots=True)
class Stats:
    """Running figures of one generation.

    prompt_tokens: of the whole prompt, cached ones included · cached_tokens: of these, found in the
    session's cache
    prompt_tps: computed prompt tokens per second · tps: generated tokens per second after the first
    seconds_to_first_token: from the call to the first token; 0 until there is one
    drafted_tokens, accepted_tokens: guessed ahead, and of these the right ones
    """

    prompt_tokens: int
    cached_tokens: int
    prompt_tps: float
    generated_tokens: int
    tps: float
    seconds_to_first_token: float
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a generation. The texts of all events joined are the answer.

    kind: token (one was chosen), size (a controller changed how the next ones are computed) or done
    (the last event; it may still carry text that was held back)
    text: the new text; never half a character, never part of a stop string · token: the id chosen,
    None if none was
    index: which generated token this is, from 0 · plan: name of the plan that computed it
    finish_reason, in done: stop (the checkpoint's end token), stop_string, length (max_tokens),
    context (no room left) or cancelled
    reason, in size: why, for people
    """

    kind: Kind
    text: str
    token: int | None
    index: int
    plan: str
    finish_reason: FinishReason | None
    stats: Stats
    reason: str | None = None


@dataclass(slots=True)
class Clock:
    """Collects the times of one generation; all in seconds of `time.perf_counter`."""

    started: float
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int = 0
    first_at: float = 0.0
    prompt_seconds: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    def token(self, now: float) -> None:
        """One more token exists."""
        if not self.generated_tokens:
            self.first_at = now
        self.generated_tokens += 1

    def stats(self, now: float) -> Stats:
        """The figures as of `now`."""
        computed = self.prompt_tokens - self.cached_tokens
        later = self.generated_tokens - 1
        since_first = now - self.first_at
        return Stats(
            self.prompt_tokens,
            self.cached_tokens,
            computed / self.prompt_seconds if self.prompt_seconds > 0 else 0.0,
            self.generated_tokens,
            later / since_first if later > 0 and since_first > 0 else 0.0,
            self.first_at - self.started if self.generated_tokens else 0.0,
            self.drafted_tokens,
            self.accepted_tokens,
        )
