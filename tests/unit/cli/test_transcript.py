"""What was said survives in a file; a file that holds anything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from matryo.cli.outcome import CommandError
from matryo.cli.transcript import read_transcript, transcript_path, write_transcript
from matryo.inputs.chat import Message

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
