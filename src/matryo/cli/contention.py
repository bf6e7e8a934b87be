"""How much of the processors other programs used while something was measured."""

from __future__ import annotations

from types import TracebackType

import psutil


class Contention:
    """A context that measures; behind it, `share_of_others` is from 0 to 1.

    It is the share of the time of all processors that was neither idle nor this process's.
    """

    def __init__(self) -> None:
        self.share_of_others = 0.0
        self._before = (0.0, 0.0, 0.0)

    def __enter__(self) -> Contention:
        self._before = _seconds()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        total, busy, own = (
            after - before for after, before in zip(_seconds(), self._before, strict=True)
        )
        self.share_of_others = min(max((busy - own) / total, 0.0), 1.0) if total > 0 else 0.0


def _seconds() -> tuple[float, float, float]:
    """Seconds of all processors together, those not idle, and those of this process."""
    machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
    # On Linux guest time is counted inside user time already.
    fields = {
        name: value for name, value in machine._asdict().items() if not name.startswith("guest")
    }
    idle = fields["idle"] + fields.get("iowait", 0.0)
    total = sum(fields.values())
    return total, total - idle, own.user + own.system
