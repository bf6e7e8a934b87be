"""A progress bar on stderr for work that takes longer than two seconds.

In: calls `bar(done, total)` or `bar(done, total, what)`. Out: a bar if stderr is a terminal;
silence otherwise.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from matryo.cli.escape import escape_name

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_S = 2.0  # shorter work needs no bar


class Bar:
    """A progress callback; the bar appears after `PATIENCE_S` and goes when the context ends."""

    def __init__(self, label: str, *, unit: str = "") -> None:
        self._label = label
        self._unit = unit
        self._started_at = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar; a later call starts a new one."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._started_at = time.monotonic()

    def __call__(self, done: float, total: float | None, what: str = "") -> None:
        """Show that `done` of `total` is done; `what` is being worked on."""
        if self._progress is None:
            if time.monotonic() - self._started_at < PATIENCE_S:
                return
            self._progress = self._make()
            self._task = self._progress.add_task(self._label, total=total, what="")
        task = self._task
        if task is not None:
            self._progress.update(task, completed=done, total=total, what=escape_name(what))

    def _make(self) -> Progress:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column

        from matryo.cli.output import console

        def whole() -> Column:
            return Column(no_wrap=True, overflow="ellipsis")

        in_bytes: tuple[ProgressColumn, ...] = (
            DownloadColumn(table_column=whole()),
            TransferSpeedColumn(table_column=whole()),
        )
        counted: tuple[ProgressColumn, ...] = (
            MofNCompleteColumn(table_column=whole()),
            TextColumn(self._unit, table_column=whole()),
        )
        progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=whole()),
            BarColumn(bar_width=20),
            *(in_bytes if self._unit == "bytes" else counted),
            TimeRemainingColumn(table_column=whole()),
            TextColumn("{task.fields[what]}", markup=False, table_column=whole()),
            console=console(stderr=True),
            transient=True,
            disable=not console(stderr=True).is_terminal,
        )
        progress.start()
        return progress
