"""Tables of `datasets` are read as rows of JSON are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from matryo.errors import CheckpointError, ConfigError, InputError
from matryo.train.documents import Conversation, Reader
from matryo.train.tables import is_table

ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "so?"}]}]},
]


def reader() -> Reader:
    return Reader("text", "fail", ("label", "transcript"))


def test_saved_tables_and_files_give_their_rows(tmp_path: Path) -> None:
    # Optional: without it, tables are refused (below).
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([{"text": "one", "n": 1}, {"text": "two", "n": None}])
    table.save_to_disk(str(tmp_path / "saved"))
    table.to_parquet(str(tmp_path / "rows.parquet"))
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    for path in (tmp_path / "saved", tmp_path / "rows.parquet", arrow):
        assert is_table(path) and list(reader().rows([path])) == ["one", "two"]
    chats = datasets.Dataset.from_list(ROWS[:1] * 2)
    chats.to_parquet(str(tmp_path / "chats.parquet"))
    found = list(reader().rows([tmp_path / "chats.parquet"]))
    assert [type(row) for row in found] == [Conversation] * 2
    assert isinstance(found[0], Conversation) and found[0].messages == ROWS[0]["messages"]
    with pytest.raises(InputError, match=r"rows.parquet:1: no text in 'body'"):
        list(Reader("body", "fail", ("a", "b")).rows([tmp_path / "rows.parquet"]))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(CheckpointError, match="cannot be read as a table"):
        list(reader().rows([tmp_path / "broken.parquet"]))


def test_without_datasets_a_table_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "rows.parquet").touch()
    with pytest.raises(ConfigError, match=r"rows.parquet needs datasets; pip install"):
        list(reader().rows([tmp_path / "rows.parquet"]))
    with pytest.raises(InputError, match=r"a .parquet or .arrow table"):
        list(reader().rows([tmp_path / "rows.csv"]))
