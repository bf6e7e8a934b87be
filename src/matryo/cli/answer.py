"""Show the events of a generation: text on stdout and a status line on stderr, or JSON lines.

In: `Event`s. Out: what a person or a program reads while they come, and a `Result` at the end.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from matryo.cli.live import LiveLine
from matryo.cli.output import format_bytes, write_json
from matryo.errors import KernelError

if TYPE_CHECKING:
    from matryo.session import Event


@dataclass(frozen=True, slots=True)
class Result:
    """One whole answer and its last event."""

    text: str
    end: Event

    @property
    def cancelled(self) -> bool:
        """Whether the answer was stopped from outside."""
        return self.end.finish_reason == "cancelled"

    def to_json(self) -> dict[str, Any]:
        """The summary that ends a stream of JSON lines; times in seconds, sizes in bytes."""
        stats = self.end.stats
        return {
            "event": "end",
            "text": self.text,
            "finish_reason": self.end.finish_reason,
            "size": self.end.plan,
            "prompt_tokens": stats.prompt_tokens,
            "cached_tokens": stats.cached_tokens,
            "tokens": stats.generated_tokens,
            "prompt_tokens_per_s": stats.prompt_tps,
            "tokens_per_s": stats.tps,
            "seconds_to_first_token": stats.seconds_to_first_token,
            "drafted_tokens": stats.drafted_tokens,
            "accepted_tokens": stats.accepted_tokens,
            "resident_bytes": resident_bytes(),
        }


def show(events: Iterable[Event], *, json: bool, remark: bool = True) -> Result:
    """Write the events as they come; `remark`: and a line of figures at the end of a text.

    Raises KernelError if they stop without saying why.
    """
    return _show_json(events) if json else _show_text(events, remark=remark)


def _show_text(events: Iterable[Event], *, remark: bool) -> Result:
    pieces: list[str] = []
    end: Event | None = None
    change: Event | None = None
    with LiveLine() as line:
        for event in events:
            pieces.append(event.text)
            line.write(event.text)
            change = event if event.kind == "size" else change
            line.status(lambda event=event, change=change: live_status(event, change))  # type: ignore[misc]
            end = event
        line.end_of_answer()
        result = _result(pieces, end)
        if remark:
            line.remark(status(result.end))
    return result


def _show_json(events: Iterable[Event]) -> Result:
    pieces: list[str] = []
    end: Event | None = None
    for event in events:
        if event.kind == "size":
            write_json({"event": "size", "size": event.plan, "reason": event.reason})
        if event.text:
            write_json({"event": "text", "text": event.text, "size": event.plan})
        pieces.append(event.text)
        end = event
    result = _result(pieces, end)
    write_json(result.to_json())
    return result


def _result(pieces: list[str], end: Event | None) -> Result:
    if end is None or end.finish_reason is None:
        raise KernelError("the generation stopped without saying why; please report this")
    return Result("".join(pieces), end)


def live_status(event: Event, change: Event | None = None) -> str:
    """A short line while an answer comes: `large · 45.6 tokens/s · 123 tokens · 87.00 MB`, and why
    the size was changed last.
    """
    stats = event.stats
    speed = [f"{stats.tps:.1f} tokens/s"] if stats.tps else []
    memory = format_bytes(resident_bytes())
    why = [change.reason] if change is not None and change.reason else []
    return " · ".join([event.plan, *speed, _tokens(stats.generated_tokens), memory, *why])


def status(event: Event) -> str:
    """One line: `large · 123 tokens · 45.6 tokens/s · 0.21 s to the first · 87 MB resident`."""
    stats = event.stats
    parts = [
        event.plan,
        _tokens(stats.generated_tokens),
        f"{stats.tps:.1f} tokens/s",
        f"{stats.seconds_to_first_token:.2f} s to the first",
        f"{format_bytes(resident_bytes())} resident",
    ]
    if stats.drafted_tokens:
        parts.append(f"{stats.accepted_tokens} of {stats.drafted_tokens} guesses right")
    if event.finish_reason == "cancelled":
        parts.append("interrupted")
    elif event.finish_reason in ("length", "context"):
        parts.append(f"cut: {event.finish_reason}")
    return " · ".join(parts)


def _tokens(count: int) -> str:
    return f"{count} token{'s' * (count != 1)}"


def resident_bytes() -> int:
    """The resident set of this process as the operating system counts it."""
    import psutil

    return int(psutil.Process().memory_info().rss)


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event that is yielded instead of raising; a second Ctrl-C raises as usual."""
    cancel = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    if threading.current_thread() is not threading.main_thread():
        yield cancel
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield cancel
    finally:
        signal.signal(signal.SIGINT, before)
