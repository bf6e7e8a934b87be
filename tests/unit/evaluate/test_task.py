"""Tasks from files: what counts, what is left out and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matryo.errors import InputError
from matryo.evaluate.rows import TextRow
from matryo.evaluate.task import read_task


def write(path: Path, *lines: object) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def test_broken_rows_are_named_and_the_others_count(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mixed.jsonl",
        {"text": "a b\u2028c"},
        "",
        "{not json",
        {"text": ""},
        {"prompt": "q", "reference": "r", "task": "other"},
        {"text": "a b\u2028c"},
    )
    task = read_task(file)
    assert task.name == "mixed" and task.parts == ("mixed", "other")
    first = task.rows[0]
    assert isinstance(first, TextRow) and first.text == "a b\u2028c"
    assert [reason.split(":")[0] for reason in task.broken] == [
        "mixed.jsonl line 3",
        "mixed.jsonl line 4",
        "1 rows say the same as an earlier one",
    ]
    assert [row.part for row in task.only("other").rows] == ["other"]
    with pytest.raises(InputError, match="no part 'third'; there are mixed, other"):
        task.only("third")


def test_any_other_file_is_one_text(tmp_path: Path) -> None:
    task = read_task(write(tmp_path / "book.txt", "Call me", "Ishmael."))
    assert [type(row) for row in task.rows] == [TextRow] and task.rows[0].part == "book"


def test_the_digest_changes_with_what_is_asked(tmp_path: Path) -> None:
    digests = {
        read_task(write(tmp_path / name, {"text": text})).digest
        for name, text in (("a.jsonl", "one"), ("b.jsonl", "one"), ("a.jsonl", "two"))
    }
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "has no rows"),
        ("blank.jsonl", b"\n\n  \n", "has no rows"),
        ("broken.jsonl", b"{}\n[]\n", "all 2 rows are broken: broken.jsonl line 1"),
        ("empty.txt", b" \n", "the text is empty"),
        ("latin.txt", b"caf\xe9", "not text in UTF-8"),
    ],
)
def test_a_file_with_nothing_in_it_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_task(tmp_path / name)


def test_unknown_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no task 'nothing'"):
        read_task("nothing")
    with pytest.raises(InputError, match="is a directory"):
        read_task(tmp_path)
