"""Counts and bytes as people read them; JSON as programs and terminals can take it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from matryo.cli.outcome import CommandError
from matryo.cli.output import check_output, format_bytes, format_count, write_json


def test_an_output_that_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_output(None)
    check_output(tmp_path / "x.json")
    assert not any(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(CommandError, match=f"--output: no such directory: {tmp_path}/no"):
        check_output(tmp_path / "no" / "x.json")
    with pytest.raises(CommandError, match="expected the name of a file, got the directory"):
        check_output(tmp_path)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # a test may be allowed everything
    with pytest.raises(CommandError, match=f"nothing can be written in {tmp_path}: Permission"):
        check_output(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.50 kB"), (2.5e6, "2.50 MB"), (3.217e9, "3.22 GB")],
)
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7"), (250_000, "250 k"), (8.68e6, "8.68 M"), (1.91e9, "1.91 B")]
)
def test_counts(count: float, text: str) -> None:
    assert format_count(count) == text


def test_json_is_one_line_that_a_terminal_obeys_nothing_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_json({"text": "é\x1b[2J\x9b\u202e\n"})
    written = capsys.readouterr().out
    assert written.count("\n") == 1
    assert not set(written) & {"\x1b", "\x9b", "\u202e"}
    assert json.loads(written) == {"text": "é\x1b[2J\x9b\u202e\n"}


def test_what_is_no_number_is_never_written() -> None:
    with pytest.raises(ValueError):
        write_json({"speed": float("nan")})
