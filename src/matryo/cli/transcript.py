"""What was said in a chat, as a JSON file beside the saved session.

In: messages, or an untrusted file. Out: the same messages; pictures and sounds are written as the
paths they came from, and read from there when the conversation goes on. The session file holds
token ids and the cache; the messages are what a person can read, and what the chat template needs
for the next turn.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matryo.cli.outcome import CommandError

if TYPE_CHECKING:
    from matryo.inputs.chat import Message

MAX_BYTES = 64 << 20
ROLES = ("system", "user", "assistant")
ITEMS = ("text", "image", "audio", "video")


def transcript_path(session: Path) -> Path:
    """`talk.session` → `talk.session.json`."""
    return session.with_name(session.name + ".json")


def write_transcript(path: Path, messages: list[Message]) -> None:
    """Write the messages; the file appears whole or not at all. Raises OSError."""
    plain = [{**message, "content": _plain(message["content"])} for message in messages]
    text = json.dumps(plain, ensure_ascii=False, indent=1)
    handle, temporary = tempfile.mkstemp(prefix=".transcript.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text + "\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_transcript(path: Path) -> list[Message]:
    """Read the messages.

    Raises OSError if there is no file, CommandError if it is not a transcript.
    """
    if path.stat().st_size > MAX_BYTES:
        raise CommandError(f"{path}: expected a transcript of at most {MAX_BYTES} bytes")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{path}: expected JSON: {error}") from error
    if not isinstance(document, list):
        raise CommandError(f"{path}: expected a list of messages")
    return [_message(path, entry) for entry in document]


def _plain(content: Any) -> Any:
    """Content items with the name of a source in place of the source."""
    from matryo.inputs.source import Source

    if isinstance(content, str):
        return content
    items = []
    for item in content:
        source = item.get(item["type"])
        if isinstance(source, Source):
            key = "url" if "://" in source.name else "path"
            item = {name: value for name, value in item.items() if value is not source}
            item[key] = source.name if key == "url" else os.path.abspath(source.name)
        items.append(item)
    return items


def _are_items(content: object) -> bool:
    """Whether it is a list of texts, and of files by path or URL."""
    return isinstance(content, list) and all(
        isinstance(item, dict)
        and item.get("type") in ITEMS
        and set(item) <= {"type", "text", "path", "url", "sound"}
        and all(isinstance(item[key], str) for key in ("text", "path", "url") if key in item)
        for item in content
    )


def _message(path: Path, entry: object) -> Message:
    if isinstance(entry, dict) and set(entry) == {"role", "content"}:
        role, content = entry["role"], entry["content"]
        if role in ROLES and (isinstance(content, str) or _are_items(content)):
            return {"role": role, "content": content}
    raise CommandError(f"{path}: expected messages with role and content, got {str(entry)[:60]}")
