"""Training files as rows of token ids, in an order that a number can resume.

In: .txt and .jsonl files, a checkpoint's tokenizer and template. Out: rows of two kinds. Documents
are packed: each opens with the begin id and closes with the end id, they follow each other without
padding, and a row is `sequence + 1` neighbouring ids, so that each id is predicted once an epoch. A
conversation is a row of its own, with its pictures and sounds. Rows are shuffled anew every epoch;
where a run stands is the count of rows it has taken. All is kept in files, so that a corpus need
not fit in memory and is read once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.atomic import replace_text, replacing
from matryo.errors import CheckpointError, InputError
from matryo.inputs.tokenizer import Tokenizer
from matryo.train.conversation import ConversationEncoder
from matryo.train.documents import Conversation, Reader, some
from matryo.train.media_store import (
    NO_MEDIA,
    PICTURES,
    SOUNDS,
    MediaShape,
    MediaStore,
    MediaWriter,
    unchanged,
)

I64 = npt.NDArray[np.int64]

# Another tokenizer gives other ids for it.
SAMPLE = "The quick brown fox, 42 naïve Ωmega 東京 🌍\n\n  def f(x):\treturn x"
_FORMAT = 3
_TOKENS, _CHATS, _LEARNED, _INDEX = "tokens.bin", "chats.bin", "learned.bin", "tokens.json"


@dataclass(frozen=True, slots=True)
class Sample:
    """One row: ids (n,) and which of them are learned (n,); the first never is.

    pictures, sounds: numbers in the corpus' store · labels, transcript: see `Conversation`
    """

    ids: I64
    learned: npt.NDArray[np.bool_]
    pictures: Sequence[int] = ()
    sounds: Sequence[int] = ()
    labels: Sequence[str] = ()
    transcript: str | None = None


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows and where they come from.

    tokens (n,) i32, mapped: packed documents · chats (m,) i32, learned (m,) u8, mapped: the ids of
    conversations, `index` says where each begins and what is in it
    num_bytes: of UTF-8 text in what is learned, num_learned: its ids · bad_rows: skipped,
    `file:line: why` · digest: SHA-256 of the ids and of the files of their media
    """

    tokens: npt.NDArray[np.int32]
    num_documents: int
    num_bytes: int
    bad_rows: tuple[str, ...]
    digest: str
    num_learned: int
    chats: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    learned: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    index: Sequence[Any] = ()
    media: MediaStore | None = None

    def num_rows(self, sequence: int) -> int:
        """Whole rows of `sequence` inputs and as many labels, and conversations."""
        return self.num_packed(sequence) + len(self.index)

    def num_packed(self, sequence: int) -> int:
        """How many of the rows are documents; they come first."""
        return max(0, (len(self.tokens) - 1) // sequence)

    def row(self, number: int, sequence: int) -> Sample:
        """One row."""
        packed = self.num_packed(sequence)
        if number < packed:
            ids = self.tokens[number * sequence : (number + 1) * sequence + 1].astype(np.int64)
            learned = np.ones(len(ids), bool)
            learned[0] = False
            return Sample(ids, learned)
        start, end, pictures, sounds, labels, transcript = self.index[number - packed]
        ids = self.chats[start:end].astype(np.int64)
        mask = self.learned[start:end].astype(bool)
        return Sample(ids, mask, pictures, sounds, labels, transcript)

    @property
    def labels(self) -> set[str]:
        """What pictures show."""
        return {label for entry in self.index for label in entry[4]}

    @property
    def transcripts(self) -> set[str]:
        """What is said in sounds."""
        return {entry[5] for entry in self.index if entry[5] is not None}


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
    names: tuple[str, str] = ("label", "transcript"),
    bad_rows: Literal["fail", "skip"] = "fail",
    encoder: ConversationEncoder | None = None,
    encoding: str = "",
    media: MediaShape = NO_MEDIA,
    longest: int | None = None,
    advice: str = "repair it",
    note: Callable[[str], None] = lambda message: None,
) -> Corpus:
    """Reads and tokenises `files` into `cache`, or maps what an earlier call left there.

    field, names: what a document, a label and a transcript are called in a row
    encoder: of conversations, None = there are none; encoding: a text that is another where it
    encodes otherwise · media: what pictures and sounds become · longest: inputs of a conversation
    advice: what to do about a bad row · note: is told what was skipped, also out of the cache
    The cache is believed if files (name, size, time), those of media and of table directories too,
    tokenizer and options are the same.
    Raises InputError for rows that cannot be used (`bad_rows` fail), or if none can;
    CheckpointError for files that cannot be read.
    """
    options = [end_id, field, names, bad_rows, encoding, asdict(media), longest]
    key = _key(files, tokenizer, options)
    found = _cached(cache, key, media)
    if found is not None:
        _tell(found.bad_rows, note)
        return found
    cache.mkdir(parents=True, exist_ok=True)
    reader = Reader(field, bad_rows, names, advice)
    with ExitStack() as stack:
        places = (_TOKENS, _CHATS, _LEARNED, PICTURES, SOUNDS)
        outs = [stack.enter_context(replacing(cache / place)) for place in places]
        writer = _Writer(tokenizer, end_id, encoder, longest, MediaWriter(media, *outs[3:]), outs)
        for row in reader.rows(files):
            if isinstance(row, str):
                writer.document(row)
                continue
            try:
                writer.conversation(row)
            except InputError as error:
                reader.refuse(f"{row.where}: {error}")
        if not writer.count:
            raise InputError(f"no usable text in {', '.join(path.name for path in files)}")
    _tell(reader.bad, note)
    values = {"key": key, "bad": reader.bad, **writer.summary()}
    replace_text(cache / _INDEX, json.dumps(values) + "\n")
    opened = _cached(cache, key, media)
    if opened is None:
        raise CheckpointError("changed while it was written", file=str(cache))
    return opened


def _tell(bad: Sequence[str], note: Callable[[str], None]) -> None:
    if bad:
        note(f"{len(bad)} rows skipped: {some(bad)}")


class _Writer:
    """Rows into files."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        end_id: int,
        encoder: ConversationEncoder | None,
        longest: int | None,
        media: MediaWriter,
        outs: Sequence[Any],
    ) -> None:
        self._tokenizer, self._end_id, self._encoder = tokenizer, end_id, encoder
        self._longest, self._media = longest, media
        self._tokens, self._chats, self._learned = outs[:3]
        self._digest = hashlib.sha256()
        self._index: list[Any] = []
        self.count = self._num_bytes = self._num_tokens = self._num_chats = self._num_learned = 0

    def document(self, text: str) -> None:
        """Packs a text behind the others."""
        ids = np.array([*self._tokenizer.encode(text, bos=True), self._end_id], "<i4")
        self._tokens.write(ids.tobytes())
        self._digest.update(ids.tobytes())
        self._num_tokens += len(ids)
        self._num_learned += len(ids)
        self._num_bytes += len(text.encode("utf-8"))
        self.count += 1

    def conversation(self, row: Conversation) -> None:
        """Raises InputError for a row that cannot be used; then nothing of it is written."""
        if self._encoder is None:
            raise InputError("messages, but this run takes texts alone")
        found = self._encoder.encode(row)
        if self._longest is not None and len(found.ids) > self._longest + 1:
            raise InputError(
                f"a conversation of {len(found.ids)} tokens; data.sequence is {self._longest}"
            )
        places: dict[str, list[int]] = {"vision": [], "audio": []}
        for tower, medium in found.media:
            places[tower].append(self._media.add(tower, medium))
        ids, learned = np.array(found.ids, "<i4"), np.array(found.learned, np.uint8)
        for data, out in ((ids, self._chats), (learned, self._learned)):
            out.write(data.tobytes())
            self._digest.update(data.tobytes())
        end = self._num_chats + len(ids)
        self._index.append(
            [self._num_chats, end, places["vision"], places["audio"], row.labels, row.transcript]
        )
        self._num_chats = end
        self._num_learned += int(learned.sum())
        self._num_bytes += found.num_bytes
        self.count += 1

    def summary(self) -> dict[str, Any]:
        """What the index says of the files."""
        self._digest.update(json.dumps(self._index).encode() if self._index else b"")
        self._digest.update("".join(self._media.digests).encode())  # of texts alone: nothing
        return {
            "documents": self.count,
            "bytes": self._num_bytes,
            "tokens": self._num_tokens,
            "chat_tokens": self._num_chats,
            "learned": self._num_learned,
            "digest": self._digest.hexdigest(),
            "index": self._index,
            "pictures": self._media.num_pictures,
            "frames": self._media.frames,
            "files": self._media.files,
        }


def _cached(cache: Path, key: str, media: MediaShape) -> Corpus | None:
    try:
        values = json.loads((cache / _INDEX).read_text(encoding="utf-8"))
        if values["key"] != key or not unchanged(values["files"]):
            return None
        sizes = {_TOKENS: 4 * values["tokens"], _CHATS: 4 * values["chat_tokens"]}
        sizes[_LEARNED] = values["chat_tokens"]
        if any(os.path.getsize(cache / name) != size for name, size in sizes.items()):
            return None
        store = MediaStore(cache, media, values["pictures"], values["frames"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Corpus(
        tokens=_mapped(cache / _TOKENS, "<i4"),
        num_documents=values["documents"],
        num_bytes=values["bytes"],
        bad_rows=tuple(values["bad"]),
        digest=values["digest"],
        num_learned=values["learned"],
        chats=_mapped(cache / _CHATS, "<i4"),
        learned=_mapped(cache / _LEARNED, "u1"),
        index=values["index"],
        media=store,
    )


def _mapped(path: Path, kind: str) -> npt.NDArray[Any]:
    return np.memmap(path, kind, "r") if path.stat().st_size else np.empty(0, kind)


def _key(files: Sequence[Path], tokenizer: Tokenizer, options: Sequence[object]) -> str:
    parts: list[object] = [_FORMAT, *options, tokenizer.bos_id, len(tokenizer)]
    parts.append(tokenizer.encode(SAMPLE))
    for path in files:
        try:
            # The time of a directory is not that of the files in it.
            parts += [
                [str(one), status.st_size, status.st_mtime_ns]
                for one in (sorted(path.iterdir()) if path.is_dir() else [path])
                for status in [one.stat()]
            ]
        except OSError as error:
            raise CheckpointError(f"cannot be read: {error.strerror}", file=str(path)) from error
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
