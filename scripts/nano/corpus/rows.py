"""Rows of training and held-out data, and which split a thing belongs to.

In: a task, a prompt of texts and media, an answer. Out: JSON lines in the chat layout of Hugging
Face; paths of media are relative to the file that names them.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
HELD_OUT = 20  # one in so many is held out


def number_of(key: str) -> int:
    """A number that depends on the key alone, evenly spread over 64 bits."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def is_held_out(kind: str, key: str, share: int = HELD_OUT) -> bool:
    """Whether the thing of this kind is kept for measuring."""
    return number_of(f"{kind}: {key}") % share == 0


def generator(key: str, seed: int = 0) -> random.Random:
    """Random numbers that depend on the key, whatever else is built."""
    return random.Random(number_of(f"{seed} {key}"))


def image(path: str) -> dict[str, str]:
    """A picture in a prompt."""
    return {"type": "image", "image": path}


def audio(path: str) -> dict[str, str]:
    """A clip in a prompt."""
    return {"type": "audio", "audio": path}


def text(words: str) -> dict[str, str]:
    """Words in a prompt or an answer."""
    return {"type": "text", "text": words}


def chat(
    task: str,
    language: str,
    prompt: str | Sequence[Mapping[str, str]],
    answer: str,
    **details: Any,
) -> Row:
    """One question and its answer. `details` are for measuring; training does not see them."""
    content = [text(prompt)] if isinstance(prompt, str) else [dict(part) for part in prompt]
    return {
        "messages": [
            {"role": "user", "content": content},
            {"role": "assistant", "content": [text(answer)]},
        ],
        "task": task,
        "lang": language,
        **details,
    }


def dialogue(task: str, language: str, turns: Sequence[str]) -> Row:
    """Several turns, the user first."""
    roles = ("user", "assistant")
    messages = [
        {"role": roles[number % 2], "content": [text(turn)]} for number, turn in enumerate(turns)
    ]
    return {"messages": messages, "task": task, "lang": language}


def parts(row: Row) -> list[dict[str, str]]:
    """All parts of all messages."""
    return [part for message in row.get("messages", []) for part in message["content"]]


def texts(row: Row) -> list[str]:
    """All texts of a row."""
    if "text" in row:
        return [row["text"]]
    return [part["text"] for part in parts(row) if part["type"] == "text"]


def media(row: Row) -> list[str]:
    """Paths of the media of a row."""
    return [part[part["type"]] for part in parts(row) if part["type"] != "text"]


def answer(row: Row) -> str:
    """The last answer of a chat row."""
    reply: str = row["messages"][-1]["content"][0]["text"]
    return reply


def write(path: Path, rows: Iterable[Row], order: str | None = None, limit: int = 0) -> int:
    """Write rows, in an order that depends on `order` if given, at most `limit` if not 0; whole or
    not at all. Returns their number.
    """
    listed = list(rows)
    if order is not None:
        generator(order).shuffle(listed)
    if limit:
        listed = listed[:limit]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("w", encoding="utf-8") as file:
        for row in listed:
            file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    os.replace(unfinished, path)
    return len(listed)


def read(path: Path) -> list[Row]:
    """The rows of a file."""
    # Not `splitlines`, which cuts at line ends that JSON leaves in texts too, such as U+2028.
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
