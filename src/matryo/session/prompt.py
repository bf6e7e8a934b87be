"""What a user gives a session, as ids and the pictures and clips among them.

In: text, token ids, messages, or texts mixed with pictures and sound. Out: `Prompted`: the ids a
session has once it has taken the prompt, and where each part lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from matryo.errors import InputError
from matryo.media.parts import MediaPart, PartReader, is_source
from matryo.media.prompt import Placed, expand, place, placeholder
from matryo.session.runtime import Runtime

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]] | Sequence[Any]
"""A text, token ids, messages ({"role": …, "content": …}), or texts, pictures and sounds in a list:
strings, content items ({"type": "image", "image": …}), paths, bytes, arrays, Pillow images.
"""

_ITEM_OF = {"vision": {"type": "image"}, "audio": {"type": "audio"}}


@dataclass(frozen=True, slots=True)
class Prompted:
    """All ids of a session, and its pictures and clips in order."""

    ids: list[int]
    placed: list[Placed]


def read_prompt(
    prompt: Prompt, ids: list[int], placed: list[Placed], runtime: Runtime, reader: PartReader
) -> Prompted:
    """A session of `ids` and `placed` with a prompt added, or the conversation that messages give.

    Raises InputError for anything that cannot be used.
    """
    if isinstance(prompt, str):
        return _continued(prompt, [], ids, placed, runtime)
    given = prompt if isinstance(prompt, np.ndarray) else list(prompt)
    if _are_messages(given):
        return _conversation(given, runtime, reader)
    if _are_parts(given):
        text, parts = _joined(given, runtime, reader)
        return _continued(text, parts, ids, placed, runtime)
    appended = runtime.engine.check_ids(given)
    return Prompted(ids + [int(token) for token in appended], placed)


def _are_messages(given: Any) -> bool:
    return len(given) > 0 and all(
        isinstance(item, Mapping) and "type" not in item for item in given
    )


def _are_parts(given: Any) -> bool:
    """Whether there is a text, an item or a source among them; ids are whole numbers only."""
    if isinstance(given, np.ndarray):
        return False
    return any(isinstance(item, str | Mapping) or is_source(item) for item in given)


def _continued(
    text: str, parts: list[MediaPart], ids: list[int], placed: list[Placed], runtime: Runtime
) -> Prompted:
    """The session with a text at its end; a new one begins with the begin token."""
    begins = not ids and runtime.bos_id is not None
    return _encoded(text, parts, ids, placed, runtime, begins=begins)


def _conversation(
    messages: Sequence[Mapping[str, Any]], runtime: Runtime, reader: PartReader
) -> Prompted:
    """The whole conversation that the checkpoint's template makes of messages."""
    parts: list[MediaPart] = []
    plain = []
    for number, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(content, str) and isinstance(content, Sequence):
            items: list[Any] = []
            for place_in, item in enumerate(content):
                if not isinstance(item, Mapping) or item.get("type") in ("text", None):
                    items.append(item)
                    continue
                found = reader.item(item, f"message {number}, item {place_in}")
                items += [dict(_ITEM_OF[part.tower]) for part in found]
                parts += found
            message = {**message, "content": items}
        plain.append(message)
    text = runtime.text.chat_template.render(plain)
    return _encoded(text, parts, [], [], runtime, begins=False)


def _joined(
    given: Sequence[Any], runtime: Runtime, reader: PartReader
) -> tuple[str, list[MediaPart]]:
    """One text with placeholders, and the parts they stand for."""
    texts: list[str] = []
    parts: list[MediaPart] = []
    for number, value in enumerate(given):
        where = f"part {number} of the prompt"
        if isinstance(value, str):
            texts.append(value)
            continue
        if isinstance(value, Mapping) and value.get("type") == "text":
            if set(value) != {"type", "text"} or not isinstance(value["text"], str):
                raise InputError(f"{where}: expected a text item with one text, got {value!r:.80}")
            texts.append(value["text"])
            continue
        if isinstance(value, Mapping):
            found = reader.item(value, where)
        elif is_source(value):
            found = reader.raw(value, where)
        else:
            raise InputError(
                f"{where}: expected a text, a content item, a path, bytes, an array or a picture, "
                f"got {type(value).__name__}"
            )
        parts += found
        tokenizer, towers = runtime.text.tokenizer, runtime.library.towers
        texts += [placeholder(part.tower, towers, tokenizer) for part in found]
    return "".join(texts), parts


def _encoded(
    text: str,
    parts: list[MediaPart],
    ids: list[int],
    placed: list[Placed],
    runtime: Runtime,
    *,
    begins: bool,
) -> Prompted:
    tokenizer, towers = runtime.text.tokenizer, runtime.library.towers
    added = tokenizer.encode(expand(text, parts, towers, tokenizer), bos=begins)
    return Prompted(ids + added, placed + place(added, len(ids), parts, towers))


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest beginning that both have."""
    for index, (left, right) in enumerate(zip(first, second, strict=False)):
        if left != right:
            return index
    return min(len(first), len(second))
