"""Stages of work that run at the same time, each in a thread of its own, in the order of the items.

In: iterators, each of which may read from the one before. Out: the items of the last one. Between
two stages wait at most `capacity` items: a slow stage holds back those before it, so memory stays
bounded. An error reaches the reader at the place where it happened; leaving the context ends all
threads. Python code of two stages takes turns, native code (decoding, resizing, matrices) does not.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from matryo.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StageFigures:
    """What one stage did.

    items: given so far · busy_s: seconds of its own work · starved_s: waiting for the stage before
    blocked_s: waiting for room behind it
    """

    items: int
    busy_s: float
    starved_s: float
    blocked_s: float


class Pipeline:
    """Several stages; use it as a context.

    >>> with Pipeline() as line:
    ...     numbers = line.stage("count", iter(range(3)), capacity=2)
    ...     squares = line.stage("square", (n * n for n in numbers), capacity=2)
    ...     list(squares)
    [0, 1, 4]
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, Stage[Any]] = {}
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def stage(self, name: str, items: Iterable[T], *, capacity: int) -> Stage[T]:
        """Begin to iterate over `items` in a new thread; returns an iterator over the same items.

        If `items` is a generator it runs, and is closed, in that thread.
        Raises InputError for a name that is taken, a capacity below 1, or a pipeline that ended.
        """
        if capacity < 1:
            raise InputError(f"capacity of stage {name}: expected at least 1, got {capacity}")
        with self._lock:
            if self._is_closed or name in self._stages:
                raise InputError(f"stage {name}: the pipeline has ended, or has one of that name")
            stage = Stage(name, items, capacity, self)
            self._stages[name] = stage
        stage.thread.start()
        return stage

    def figures(self) -> dict[str, StageFigures]:
        """What every stage did until now, in the order they were made."""
        return {name: stage.figures() for name, stage in self._stages.items()}

    def close(self) -> None:
        """End all stages: each finishes the item it works on, the others are dropped."""
        with self._lock:
            self._is_closed = True
            stages = list(self._stages.values())
        for stage in stages:
            stage.close()
        for stage in stages:
            if stage.thread is not threading.current_thread():
                stage.thread.join()

    def current_stage(self) -> Stage[Any] | None:
        """The stage whose thread this is."""
        current = threading.current_thread()
        return next((one for one in self._stages.values() if one.thread is current), None)


class _Stopped(BaseException):
    """The pipeline was closed while a stage worked; no `except Exception` on the way catches it."""


class Stage(Generic[T], Iterator[T]):
    """One thread and the queue of what it made; made by `Pipeline.stage`."""

    def __init__(self, name: str, items: Iterable[T], capacity: int, line: Pipeline) -> None:
        self._items, self._capacity, self._line = items, capacity, line
        self._waiting: deque[T] = deque()
        self._changed = threading.Condition()
        self._has_ended = self._is_closed = False
        self._error: BaseException | None = None
        self._count = 0
        self._started_at = self._ended_at = 0.0
        self.starved_s = self._blocked_s = 0.0
        self.thread = threading.Thread(target=self._run, name=f"matryo-{name}", daemon=True)

    def __next__(self) -> T:
        reader, before = self._line.current_stage(), time.perf_counter()
        with self._changed:
            while not (self._waiting or self._has_ended or self._is_closed):
                self._changed.wait()
            if reader is not None:
                reader.starved_s += time.perf_counter() - before
            if self._is_closed:
                if reader is not None:
                    raise _Stopped
                raise StopIteration
            if self._waiting:
                self._changed.notify_all()
                return self._waiting.popleft()
            if self._error is not None:
                # Once: whoever reads on finds the end.
                error, self._error = self._error, None
                raise error
            raise StopIteration

    @property
    def waiting(self) -> int:
        """Items that can be had at once."""
        with self._changed:
            return len(self._waiting)

    def figures(self) -> StageFigures:
        """What it did until now."""
        with self._changed:
            until = self._ended_at or time.perf_counter()
            whole = until - self._started_at if self._started_at else 0.0
            busy = max(0.0, whole - self.starved_s - self._blocked_s)
            return StageFigures(self._count, busy, self.starved_s, self._blocked_s)

    def close(self) -> None:
        """Stop giving and taking; `Pipeline.close` calls it."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        self._started_at = time.perf_counter()
        error: BaseException | None = None
        try:
            try:
                for item in self._items:
                    self._put(item)
            finally:
                close = getattr(self._items, "close", None)
                # Another stage is closed by the pipeline, not by its reader.
                if close is not None and not isinstance(self._items, Stage):
                    close()
        except _Stopped:
            pass
        except BaseException as caught:
            error = caught
        with self._changed:
            self._has_ended, self._error = True, error
            self._ended_at = time.perf_counter()
            self._changed.notify_all()

    def _put(self, item: T) -> None:
        before = time.perf_counter()
        with self._changed:
            while len(self._waiting) >= self._capacity and not self._is_closed:
                self._changed.wait()
            self._blocked_s += time.perf_counter() - before
            if self._is_closed:
                raise _Stopped
            self._waiting.append(item)
            self._count += 1
            self._changed.notify_all()
