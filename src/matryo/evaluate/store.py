"""Results that were computed before, in one SQLite file, so that nothing is computed twice.

In: what was computed (weights, plan, item) and its result. Out: the same result, in this process or
a later one. A process that is killed loses what it wrote in the last second, nothing else.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from matryo.errors import InputError
from matryo.evaluate.rows import digest_of
from matryo.plan import Plan

Result = dict[str, Any]

FORMAT = 1
"""Raised when the same names mean other numbers."""
COMMIT_S = 1.0
_ASKED = 500  # names in one question


class Store:
    """A file of results; a context that closes it.

    Raises InputError if the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._committed_at = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open = sqlite3.connect(path, timeout=30.0)
            self._open.execute("PRAGMA journal_mode=WAL")
            self._open.execute("PRAGMA synchronous=NORMAL")
            self._open.execute(
                "CREATE TABLE IF NOT EXISTS results (computed_by TEXT, item TEXT, result TEXT, "
                "PRIMARY KEY (computed_by, item)) WITHOUT ROWID"
            )
            self._open.commit()
        except (sqlite3.Error, OSError) as error:
            raise InputError(
                f"{path} cannot be used to keep results: {error}; name another file"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Keep what was put and close the file."""
        self._open.commit()
        self._open.close()

    def known(self, computed_by: str, items: Iterable[str]) -> dict[str, Result]:
        """Results of those items that have one."""
        wanted = list(items)
        found: dict[str, Result] = {}
        for start in range(0, len(wanted), _ASKED):
            asked = wanted[start : start + _ASKED]
            marks = ",".join("?" * len(asked))
            query = f"SELECT item, result FROM results WHERE computed_by = ? AND item IN ({marks})"
            try:
                rows = self._open.execute(query, (computed_by, *asked)).fetchall()
            except sqlite3.Error as error:
                raise InputError(f"{self.path} cannot be read: {error}") from error
            found.update({item: json.loads(result) for item, result in rows})
        return found

    def put(self, computed_by: str, item: str, result: Result) -> None:
        """Keep a result. Raises InputError if it cannot be written."""
        text = json.dumps(result, ensure_ascii=False)
        try:
            self._open.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?)", (computed_by, item, text)
            )
            if time.monotonic() - self._committed_at >= COMMIT_S:
                self.commit()
        except sqlite3.Error as error:
            raise InputError(f"{self.path} cannot be written: {error}") from error

    def commit(self) -> None:
        """Make sure that what was put stays."""
        self._open.commit()
        self._committed_at = time.monotonic()


def name_of_plan(identity: Mapping[str, str], kv_kind: str, plan: Plan, *more: object) -> str:
    """What computed a result: weights, kind of the K/V cache, and plan."""
    return digest_of(FORMAT, dict(identity), kv_kind, plan.to_json(), *more)
