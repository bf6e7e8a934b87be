"""How long a token takes at the present size, from the latest ones."""

from __future__ import annotations

from collections import deque
from statistics import median

MOST_TOKENS, LEAST_TOKENS = 5, 2
WINDOW_S = 0.75  # slow tokens are known after two; one slow token among quick ones is no load


class Pace:
    """The median of the latest tokens of one size; None until there are enough."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=MOST_TOKENS)

    def note(self, seconds: float) -> None:
        """One more token took so long."""
        self._seconds.append(seconds)
        while len(self._seconds) > LEAST_TOKENS and sum(self._seconds) > WINDOW_S:
            self._seconds.popleft()

    def restart(self) -> None:
        """Another size from here on."""
        self._seconds.clear()

    @property
    def token_seconds(self) -> float | None:
        """Seconds of a token, if known."""
        return median(self._seconds) if len(self._seconds) >= LEAST_TOKENS else None

    @property
    def latest(self) -> float | None:
        """Seconds of the latest token, if there is one."""
        return self._seconds[-1] if self._seconds else None

    @property
    def slower_half(self) -> float:
        """Seconds that the tokens took together that lie at the median or above."""
        return sum(sorted(self._seconds)[len(self._seconds) // 2 :])
