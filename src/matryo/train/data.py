"""Texts into rows of token ids, in an order that a number can resume.

In: .txt files (one document each) and .jsonl files (one document a row), a tokenizer. Out: packed
rows: every document opens with the begin id and closes with the end id, documents follow each other
without padding, and a row is `sequence + 1` neighbouring ids, so that each id is predicted once an
epoch. Rows are shuffled anew every epoch; where a run stands is the count of rows it has taken.
Tokens are kept in a file, so that a corpus need not fit in memory and is read once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.atomic import replace_text, replacing
from matryo.errors import CheckpointError, InputError
from matryo.inputs.tokenizer import Tokenizer

I64 = npt.NDArray[np.int64]

NAMED = 5  # bad rows that a message names
_MAX_LINE = 64 << 20


@dataclass(frozen=True, slots=True)
class Corpus:
    """Packed tokens and where they come from.

    tokens (n,) i32, mapped · num_bytes: of UTF-8 text in them · bad_rows: skipped, `file:line: why`
    digest: SHA-256 of the tokens
    """

    tokens: npt.NDArray[np.int32]
    num_documents: int
    num_bytes: int
    bad_rows: tuple[str, ...]
    digest: str

    def num_rows(self, sequence: int) -> int:
        """Whole rows of `sequence` inputs and as many labels."""
        return max(0, (len(self.tokens) - 1) // sequence)

    def rows(self, indices: Sequence[int] | I64, sequence: int) -> I64:
        """Rows (n, sequence + 1)."""
        return np.stack(
            [self.tokens[i * sequence : (i + 1) * sequence + 1] for i in indices]
        ).astype(np.int64)


class Shuffled:
    """Rows of a corpus, each once an epoch, in an order that the seed and the position give."""

    def __init__(self, corpus: Corpus, sequence: int, seed: int) -> None:
        """Raises InputError if the texts do not fill one row."""
        self.corpus, self.sequence, self.seed = corpus, sequence, seed
        self.num_rows = corpus.num_rows(sequence)
        if not self.num_rows:
            raise InputError(
                f"the texts are {len(corpus.tokens)} tokens; one row needs {sequence + 1}: "
                "add text or lower data.sequence"
            )
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def indices(self, position: int, count: int) -> list[int]:
        """Which rows follow after `position` rows have been taken."""
        found = []
        for taken in range(position, position + count):
            epoch, place = divmod(taken, self.num_rows)
            if epoch != self._epoch:
                rng = np.random.default_rng([self.seed, epoch])
                self._epoch, self._order = epoch, rng.permutation(self.num_rows)
            found.append(int(self._order[place]))
        return found


def open_corpus(
    files: Sequence[Path],
    tokenizer: Tokenizer,
    cache: Path,
    *,
    end_id: int,
    field: str = "text",
    bad_rows: Literal["fail", "skip"] = "fail",
    note: Callable[[str], None] = lambda message: None,
) -> Corpus:
    """Reads and tokenises `files` into `cache`, or maps what an earlier call left there.

    The cache is believed if files (name, size, time), tokenizer and options are the same.
    Raises InputError for rows that cannot be used (`bad_rows` fail), or if none can;
    CheckpointError for files that cannot be read.
    """
    key = _key(files, tokenizer, end_id, field, bad_rows)
    found = _cached(cache, key)
    if found is not None:
        return found
    cache.mkdir(parents=True, exist_ok=True)
    reader = _Reader(field, bad_rows)
    count = num_bytes = num_tokens = 0
    digest = hashlib.sha256()
    with replacing(cache / "tokens.bin") as out:
        for document in reader.documents(files):
            ids = np.array([*tokenizer.encode(document, bos=True), end_id], "<i4")
            out.write(ids.tobytes())
            digest.update(ids.tobytes())
            count, num_tokens = count + 1, num_tokens + len(ids)
            num_bytes += len(document.encode("utf-8"))
    if not count:
        raise InputError(f"no usable text in {', '.join(path.name for path in files)}")
    if reader.bad:
        note(f"{len(reader.bad)} rows skipped: {_some(reader.bad)}")
    values: dict[str, Any] = {
        "documents": count,
        "bytes": num_bytes,
        "tokens": num_tokens,
        "bad": reader.bad,
    }
    values["digest"] = digest.hexdigest()
    replace_text(cache / "tokens.json", json.dumps({"key": key, **values}) + "\n")
    opened = _cached(cache, key)
    if opened is None:
        raise CheckpointError("changed while it was written", file=str(cache))
    return opened


class _Reader:
    """Documents of files; rows that cannot be used are counted or raise."""

    def __init__(self, field: str, bad_rows: Literal["fail", "skip"]) -> None:
        self.field, self.bad_rows = field, bad_rows
        self.bad: list[str] = []

    def documents(self, files: Sequence[Path]) -> Iterator[str]:
        for path in files:
            if path.suffix not in (".txt", ".jsonl"):
                raise InputError(f"{path}: expected a .txt or .jsonl file")
            try:
                yield from self._text(path) if path.suffix == ".txt" else self._rows(path)
            except OSError as error:
                raise CheckpointError(
                    f"cannot be read: {error.strerror}", file=str(path)
                ) from error

    def _text(self, path: Path) -> Iterator[str]:
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            self._refuse(f"{path.name}: not UTF-8 at byte {error.start}")
        else:
            if text.strip():
                yield text
            else:
                self._refuse(f"{path.name}: no text")

    def _rows(self, path: Path) -> Iterator[str]:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
                if not line.strip():
                    continue
                try:
                    yield self._row(line)
                except ValueError as error:
                    self._refuse(f"{path.name}:{number}: {error}")

    def _row(self, line: bytes) -> str:
        """The text of a row; ValueError says why there is none."""
        try:
            row: Any = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start}") from None
        except (ValueError, RecursionError):
            raise ValueError("not JSON") from None
        if not isinstance(row, dict):
            raise ValueError(f"expected an object, got {type(row).__name__}")
        text = row.get(self.field)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"no text in {self.field!r}")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(f"half of a surrogate pair in {self.field!r}")
        return text

    def _refuse(self, reason: str) -> None:
        if self.bad_rows == "fail":
            raise InputError(f"{reason}; repair it, or set data.bad_rows: skip")
        self.bad.append(reason)


def _cached(cache: Path, key: str) -> Corpus | None:
    try:
        values = json.loads((cache / "tokens.json").read_text(encoding="utf-8"))
        if values["key"] != key or os.path.getsize(cache / "tokens.bin") != 4 * values["tokens"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    tokens = np.memmap(cache / "tokens.bin", "<i4", "r")
    return Corpus(
        tokens, values["documents"], values["bytes"], tuple(values["bad"]), values["digest"]
    )


def _key(
    files: Sequence[Path], tokenizer: Tokenizer, end_id: int, field: str, bad_rows: str
) -> str:
    parts: list[object] = [1, end_id, field, bad_rows, tokenizer.bos_id, len(tokenizer)]
    sample = "The quick brown fox, 42 naïve Ωmega 東京 🌍\n\n  def f(x):\treturn x"
    parts.append(tokenizer.encode(sample))
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise CheckpointError(f"cannot be read: {error.strerror}", file=str(path)) from error
        parts.append([str(path), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _some(reasons: Sequence[str]) -> str:
    more = len(reasons) - NAMED
    return "; ".join(reasons[:NAMED]) + (f"; and {more} more" if more > 0 else "")
