"""Rows of training files: documents, and conversations with pictures and sounds.

In: .txt files (one document each), .jsonl files and tables whose rows have a text, or messages in
Hugging Face layout. Out: `str`s and `Conversation`s in order; what cannot be used is named with its
file and line, and is fatal or counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matryo.errors import CheckpointError, InputError
from matryo.train.tables import is_table, table_rows

NAMED = 5  # bad rows that a message names
_MAX_LINE = 64 << 20


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row with messages.

    where: file and line, for messages · directory: where its paths start
    labels: what its picture shows, transcript: what is said in its clip, for auxiliary losses
    """

    messages: Sequence[Mapping[str, Any]]
    where: str
    directory: Path
    labels: Sequence[str] = ()
    transcript: str | None = None


class Reader:
    """Rows of files. `bad` holds those that were left out, as `file:line: why`."""

    def __init__(
        self,
        field: str,
        bad_rows: Literal["fail", "skip"],
        names: tuple[str, str],
        advice: str = "repair it",
    ) -> None:
        """field, names: what a document, a label and a transcript are called · bad_rows: what
        becomes of rows that cannot be used · advice: what to do about one, for messages.
        """
        self.field, self.bad_rows, self.names, self.advice = field, bad_rows, names, advice
        self.bad: list[str] = []

    def rows(self, files: Sequence[Path]) -> Iterator[str | Conversation]:
        """Raises InputError for a bad row (`fail`), CheckpointError for a file that cannot be
        read.
        """
        for path in files:
            if is_table(path):
                yield from self._table(path)
                continue
            if path.suffix not in (".txt", ".jsonl"):
                raise InputError(
                    f"{path}: expected a .txt or .jsonl file, a .parquet or .arrow table, or a "
                    "directory that datasets saved"
                )
            try:
                yield from self._text(path) if path.suffix == ".txt" else self._lines(path)
            except OSError as error:
                raise CheckpointError(
                    f"cannot be read: {error.strerror}", file=str(path)
                ) from error

    def refuse(self, reason: str) -> None:
        """Counts a row that cannot be used, or raises InputError."""
        if self.bad_rows == "fail":
            raise InputError(f"{reason}; {self.advice}")
        self.bad.append(reason)

    def _text(self, path: Path) -> Iterator[str]:
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            self.refuse(f"{path.name}: not UTF-8 at byte {error.start}")
        else:
            if text.strip():
                yield text
            else:
                self.refuse(f"{path.name}: no text")

    def _lines(self, path: Path) -> Iterator[str | Conversation]:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
                if not line.strip():
                    continue
                try:
                    yield self._row(line, path, number)
                except ValueError as error:
                    self.refuse(f"{path.name}:{number}: {error}")

    def _row(self, line: bytes, path: Path, number: int) -> str | Conversation:
        """What a row holds; ValueError says why that is nothing."""
        try:
            row: Any = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start}") from None
        except (ValueError, RecursionError):
            raise ValueError("not JSON") from None
        if not isinstance(row, dict):
            raise ValueError(f"expected an object, got {type(row).__name__}")
        return self._used(row, path, number)

    def _table(self, path: Path) -> Iterator[str | Conversation]:
        for number, row in enumerate(table_rows(path), 1):
            try:
                yield self._used(row, path, number)
            except ValueError as error:
                self.refuse(f"{path.name}:{number}: {error}")

    def _used(self, row: Mapping[str, Any], path: Path, number: int) -> str | Conversation:
        if "messages" in row:
            return _conversation(row, f"{path.name}:{number}", path.parent, self.names)
        text = row.get(self.field)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"no text in {self.field!r}")
        return _whole(text, self.field)


def some(reasons: Sequence[str]) -> str:
    """The first few of many."""
    more = len(reasons) - NAMED
    return "; ".join(reasons[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def _conversation(
    row: Mapping[str, Any], where: str, directory: Path, names: tuple[str, str]
) -> Conversation:
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError("expected a list of messages, with at least one")
    label, transcript = (row.get(key) for key in names)
    if transcript is not None and not isinstance(transcript, str):
        raise ValueError(f"expected text in {names[1]!r}")
    labels = [] if label is None else label if isinstance(label, list) else [label]
    if not all(isinstance(one, (str, int, float)) for one in labels):
        raise ValueError(f"expected a text or a number, or a list of them, in {names[0]!r}")
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            raise ValueError("expected messages with role and content")
    # What is no JSON comes from tables, such as the bytes of a picture.
    _whole(json.dumps(messages, ensure_ascii=False, default=repr), "messages")
    # Other keys of a message, such as a name, are for other programs.
    kept = [{key: message[key] for key in ("role", "content")} for message in messages]
    return Conversation(kept, where, directory, [str(one) for one in labels], transcript)


def _whole(text: str, place: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"half of a surrogate pair in {place!r}")
    return text
