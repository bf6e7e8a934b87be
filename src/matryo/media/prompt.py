"""Pictures and clips between the words: placeholders, soft ids, places.

In: text with one placeholder (`<image_soft_token>`, `<audio_soft_token>`) for each part, as chat
templates write it. Out: the text that is tokenised, and where each part lies among the ids.
Expansion acts on the text, as the reference's processor does: the line breaks that it adds become
one token with their neighbours.
Source: transformers `processing_gemma3n.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from matryo.engine import Cancel, Embeddings
from matryo.errors import CancelledError, InputError
from matryo.inputs.tokenizer import Tokenizer
from matryo.media.library import MediaLibrary
from matryo.media.parts import MediaPart
from matryo.media.towers import Towers

WORDS = {"vision": "picture", "audio": "clip"}


@dataclass(frozen=True, slots=True)
class Placed:
    """A part whose soft ids begin at `start`; `count` of them are there, fewer than the part has if
    the session was trimmed inside it.
    """

    start: int
    part: MediaPart
    count: int

    @property
    def end(self) -> int:
        """The place behind its last id."""
        return self.start + self.count

    def until(self, length: int) -> Placed:
        """What is left of it in the first `length` ids."""
        return Placed(self.start, self.part, min(self.count, length - self.start))

    def same(self, other: Placed) -> bool:
        """Whether both begin at the same place with the same features."""
        mine, theirs = self.part, other.part
        return (self.start, mine.tower, mine.count, mine.digest) == (
            other.start, theirs.tower, theirs.count, theirs.digest,
        )  # fmt: skip

    def same_rows(self, other: Placed) -> int:
        """How many features two parts that are not the same begin with in common: those of one
        sound, of which one part holds more than the other.
        """
        mine, theirs = self.part.growing, other.part.growing
        if self.start != other.start or mine is None or theirs is None or mine[0] != theirs[0]:
            return 0
        return min(mine[1], theirs[1])


def placeholder(tower: str, towers: Towers, tokenizer: Tokenizer) -> str:
    """The text that stands for one part of a tower."""
    return _spelling(towers.require(tower).ids.soft, tokenizer)


def expand(text: str, parts: Sequence[MediaPart], towers: Towers, tokenizer: Tokenizer) -> str:
    """The text with every placeholder replaced by begin, soft and end tokens between line breaks.

    Raises InputError unless there is exactly one placeholder for each part, in order.
    """
    if not parts:
        return text
    spelled = {tower: placeholder(tower, towers, tokenizer) for tower in towers.present}
    tower_of = {spelling: tower for tower, spelling in spelled.items()}
    pieces = re.split(f"({'|'.join(map(re.escape, tower_of))})", text)
    found = [tower_of[piece] for piece in pieces[1::2]]
    wanted = [part.tower for part in parts]
    if found != wanted:
        raise InputError(
            f"the prompt has {_counted(wanted)}, but placeholders for {_counted(found)}: texts may "
            f"not contain {' or '.join(tower_of)}, and the chat template must write them"
        )
    for number, part in enumerate(parts):
        ids = towers.require(part.tower).ids
        begin, end = _spelling(ids.begin, tokenizer), _spelling(ids.end, tokenizer)
        soft = spelled[part.tower] * part.count
        pieces[2 * number + 1] = f"\n\n{begin}{soft}{end}\n\n"
    return "".join(pieces)


def place(
    ids: Sequence[int], offset: int, parts: Sequence[MediaPart], towers: Towers
) -> list[Placed]:
    """Where each part lies, counted from `offset` on.

    Raises InputError if the tokenizer made something else of the soft tokens.
    """
    array, placed = np.asarray(ids, np.int64), []
    for tower in {part.tower for part in parts}:
        own = [part for part in parts if part.tower == tower]
        rows = np.flatnonzero(array == towers.require(tower).ids.soft)
        if len(rows) != sum(part.count for part in own):
            raise InputError(
                f"the tokenizer made {len(rows)} soft tokens of {len(own)} {WORDS[tower]}s: it "
                "does not fit config.json"
            )
        first = 0
        for part in own:
            placed.append(Placed(offset + int(rows[first]), part, part.count))
            first += part.count
    return sorted(placed, key=lambda one: one.start)


def same_until(first: Sequence[Placed], second: Sequence[Placed]) -> int | None:
    """The first place where two conversations of equal ids show something else; None if nowhere."""
    for one, other in zip(first, second, strict=False):
        if not one.same(other):
            return min(one.start, other.start) + one.same_rows(other)
    if len(first) == len(second):
        return None
    return (first if len(first) > len(second) else second)[min(len(first), len(second))].start


def embeddings_between(
    placed: Sequence[Placed],
    start: int,
    end: int,
    library: MediaLibrary,
    cancel: Cancel | None = None,
) -> Embeddings | None:
    """Embeddings of the soft ids in [start, end), rows counted from `start`; None if there are
    none. What no cache holds is encoded.

    Raises CancelledError when `cancel` says so, InputError if a part cannot be computed.
    """
    rows, values = [], []
    for one in placed:
        first, last = max(one.start, start), min(one.end, end)
        if first >= last:
            continue
        if cancel is not None and cancel.is_set():
            raise CancelledError("cancelled while pictures and sound were read")
        soft = library.soft(one.part, cancel)
        rows.append(np.arange(first - start, last - start, dtype=np.int32))
        values.append(soft[first - one.start : last - one.start])
    if not rows:
        return None
    return Embeddings(np.concatenate(rows), np.ascontiguousarray(np.concatenate(values)))


def _spelling(token: int, tokenizer: Tokenizer) -> str:
    spelling = tokenizer.spelling_of(token)
    if spelling is None:
        raise InputError(
            f"the tokenizer has no token for id {token} of config.json: pictures and sound can "
            "only be given as ids, to `model.logits`"
        )
    return spelling


def _counted(towers: Sequence[str]) -> str:
    counts = [f"{towers.count(tower)} {word}s" for tower, word in WORDS.items() if tower in towers]
    return " and ".join(counts) or "none"
