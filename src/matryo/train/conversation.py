"""A conversation as the ids of a row, as at run time, and which of them are learned.

In: messages, a checkpoint's tokenizer, template and ids of pictures and sounds. Out: ids. What
stands before an answer is exactly what a session is given: the template's text with the model's
turn opened, its placeholders expanded by the same function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matryo.errors import InputError
from matryo.inputs.text_format import TextFormat
from matryo.media.parts import MediaPart
from matryo.media.prompt import expand
from matryo.media.towers import TowerFiles, Towers
from matryo.tower_config import TowerConfig
from matryo.train.documents import Conversation
from matryo.train.media_store import Medium

Learned = Literal["answers", "all"]
_TOWER_OF = {"image": "vision", "audio": "audio"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row.

    ids · learned: which of them are to be predicted · media: (tower, file or its bytes) in order of
    their soft ids · num_bytes: of UTF-8 text that the learned ids stand for
    """

    ids: list[int]
    learned: list[bool]
    media: list[tuple[str, Medium]]
    num_bytes: int


def towers_of(config: TowerConfig, hidden_size: int) -> Towers:
    """Encoders that give their ids alone."""
    files = {
        tower: TowerFiles(dict, None)
        for tower in ("vision", "audio")
        if getattr(config, tower) is not None
    }
    return Towers(config, hidden_size, files, {})


class ConversationEncoder:
    """Encodes rows for one checkpoint."""

    def __init__(
        self, text: TextFormat, towers: Towers, end_ids: Sequence[int], learned: Learned
    ) -> None:
        """end_ids: what may end an answer · learned: the assistant's turns, or every text."""
        self._text, self._towers = text, towers
        self._end_ids, self._learned = frozenset(end_ids), learned
        self._soft = {towers.require(tower).ids.soft for tower in towers.present}

    def encode(self, row: Conversation) -> Encoded:
        """Raises InputError for messages that cannot be used."""
        messages, media, counts = self._placeholders(row)
        pieces: list[tuple[str, bool]] = []
        at = 0
        for number, message in enumerate(messages):
            if message["role"] not in ("assistant", "model"):
                continue
            parts = [self._part(tower) for tower, _ in media[: counts[number]]]
            opened = self._rendered(messages[:number], parts, opened=True)
            closed = self._rendered(messages[: number + 1], parts, opened=False)
            if not closed.startswith(opened) or len(opened) < at:
                raise InputError("the chat template writes an answer otherwise than it asks for it")
            pieces += [(opened[at:], False), (closed[len(opened) :], True)]
            at = len(closed)
        if not pieces:
            raise InputError("no message of the assistant to learn from")
        used = counts[max(n for n, m in enumerate(messages) if m["role"] in ("assistant", "model"))]
        return self._encoded(pieces, media[:used])

    def _encoded(self, pieces: Sequence[tuple[str, bool]], media: Any) -> Encoded:
        ids: list[int] = []
        learned: list[bool] = []
        num_bytes = 0
        for text, is_answer in pieces:
            found = self._text.tokenizer.encode(text)
            last = len(found)
            if is_answer:
                ends = [place for place, token in enumerate(found) if token in self._end_ids]
                if not ends:
                    raise InputError(
                        "the chat template ends an answer with none of the ids that end a text: "
                        f"{', '.join(map(str, sorted(self._end_ids)))}"
                    )
                last = ends[-1] + 1
                num_bytes += len(self._text.tokenizer.decode(found[:last]).encode())
            elif self._learned == "all":
                num_bytes += len(self._text.tokenizer.decode(found).encode())
            wanted = is_answer or self._learned == "all"
            learned += [wanted and n < last and token not in self._soft
                        for n, token in enumerate(found)]  # fmt: skip
            ids += found
        while not learned[-1]:  # the line break after the last answer
            ids.pop()
            learned.pop()
        learned[0] = False  # nothing comes before it
        return Encoded(ids, learned, list(media), num_bytes)

    def _rendered(
        self, messages: Sequence[Mapping[str, Any]], parts: list[MediaPart], *, opened: bool
    ) -> str:
        text = self._text.chat_template.render(messages, add_generation_prompt=opened)
        return expand(text, parts, self._towers, self._text.tokenizer)

    def _part(self, tower: str) -> MediaPart:
        return MediaPart(tower, "", self._towers.require(tower).ids.count, None)

    def _placeholders(
        self, row: Conversation
    ) -> tuple[list[dict[str, Any]], list[tuple[str, Medium]], list[int]]:
        """Messages as templates take them, their media, and how many come before each message."""
        plain: list[dict[str, Any]] = []
        media: list[tuple[str, Medium]] = []
        counts: list[int] = []
        for number, message in enumerate(row.messages):
            content = message["content"]
            counts.append(len(media))
            if isinstance(content, list):
                items = []
                for item in content:
                    kind = item.get("type") if isinstance(item, Mapping) else None
                    if isinstance(kind, str) and kind in _TOWER_OF:
                        media.append((_TOWER_OF[kind], _medium(item, kind, row, number)))
                        self._towers.require(_TOWER_OF[kind])
                        items.append({"type": kind})
                    else:
                        items.append(item)
                content = items
            plain.append({"role": message["role"], "content": content})
        return plain, media, counts


def _medium(item: Mapping[str, Any], kind: str, row: Conversation, number: int) -> Medium:
    """The file of an item, or its bytes; paths are relative to the row's file."""
    sources = [item[key] for key in (kind, "path") if item.get(key) is not None]
    if set(item) - {"type", kind, "path"} or len(sources) != 1:
        raise InputError(
            f"message {number}: expected an item of type {kind} with a file under {kind} or path, "
            f"got the keys {', '.join(map(str, item))}"
        )
    (source,) = sources
    if isinstance(source, Mapping):  # as tables of Hugging Face have it
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
    if isinstance(source, bytes):
        return source
    if not isinstance(source, str):
        raise InputError(
            f"message {number}: expected a file under {kind} or path, its name or {{bytes, path}}, "
            f"got {type(source).__name__}"
        )
    return row.directory / source
