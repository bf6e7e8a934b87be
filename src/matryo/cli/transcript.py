"""What was said in a chat, as a JSON file beside the saved session.

In: messages, or an untrusted file. Out: the same messages. The session file holds token ids and the
cache; the messages are what a person can read, and what the chat template needs for the next turn.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from matryo.cli.outcome import CommandError

if TYPE_CHECKING:
    from matryo.inputs.chat import Message

MAX_BYTES = 64 << 20
ROLES = ("system", "user", "assistant")


def transcript_path(session: Path) -> Path:
    """`talk.session` → `talk.session.json`."""
    return session.with_name(session.name + ".json")


def write_transcript(path: Path, messages: list[Message]) -> None:
    """Write the messages; the file appears whole or not at all. Raises OSError."""
    text = json.dumps(messages, ensure_ascii=False, indent=1)
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


def _message(path: Path, entry: object) -> Message:
    if isinstance(entry, dict) and set(entry) == {"role", "content"}:
        role, content = entry["role"], entry["content"]
        if role in ROLES and isinstance(content, str):
            return {"role": role, "content": content}
    raise CommandError(f"{path}: expected messages with role and content, got {str(entry)[:60]}")
