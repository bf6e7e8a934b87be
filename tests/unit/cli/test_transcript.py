"""What was said survives in a file; a file that holds anything else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matryo.cli.outcome import CommandError
from matryo.cli.transcript import read_transcript, transcript_path, write_transcript
from matryo.inputs.chat import Message
from matryo.inputs.source import Source

MESSAGES: list[Message] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Zażółć\n🙂"},
    {"role": "assistant", "content": ""},
]


def test_messages_come_back(tmp_path: Path) -> None:
    write_transcript(tmp_path / "t.json", MESSAGES)
    assert read_transcript(tmp_path / "t.json") == MESSAGES
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def test_it_lies_beside_the_session() -> None:
    assert transcript_path(Path("a/talk.session")) == Path("a/talk.session.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[1]",
        '[{"role": "user"}]',
        '[{"role": "root", "content": "x"}]',
        '[{"role": "user", "content": 1}]',
        '[{"role": "user", "content": "x", "more": 1}]',
        "[" * 100_000,
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text, encoding="utf-8")
    with pytest.raises(CommandError, match=r"t\.json: expected"):
        read_transcript(tmp_path / "t.json")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_transcript(tmp_path / "t.json", MESSAGES)
    with pytest.raises(TypeError):
        write_transcript(tmp_path / "t.json", [{"role": "user", "content": object()}])  # type: ignore[typeddict-item]
    assert read_transcript(tmp_path / "t.json") == MESSAGES
    assert len(list(tmp_path.iterdir())) == 1


def test_files_are_written_as_their_paths_and_read_again(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"\x89PNG\r\n\x1a\n and so on")
    text = {"type": "text", "text": "What is this?"}
    video = {"type": "video", "path": "clip.mp4", "sound": False}
    message: Any = {
        "role": "user",
        "content": [{"type": "image", "image": Source.of(str(photo))}, video, text],
    }
    write_transcript(tmp_path / "t.json", [message])
    (read,) = read_transcript(tmp_path / "t.json")
    assert read["content"] == [{"type": "image", "path": str(photo)}, video, text]


@pytest.mark.parametrize(
    "item",
    [
        '{"type": "tool", "path": "a"}',
        '{"type": "image", "image": "a.png"}',
        '{"type": "image", "path": 3}',
        '{"text": "x"}',
        "3",
    ],
)
def test_items_that_are_no_files_are_refused(tmp_path: Path, item: str) -> None:
    (tmp_path / "t.json").write_text(f'[{{"role": "user", "content": [{item}]}}]')
    with pytest.raises(CommandError, match="expected messages with role and content"):
        read_transcript(tmp_path / "t.json")
