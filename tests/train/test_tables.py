"""Tables of `datasets` are read as rows of JSON are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from matryo.errors import CheckpointError, ConfigError, InputError
from matryo.train.documents import Conversation, Reader
from matryo.train.tables import is_table, table_rows

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


def test_media_of_a_table_stay_bytes_and_nothing_is_put_beside_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")  # as above
    data = {"bytes": b"no picture: it is not opened", "path": None}
    item = {"type": "image", "image": data}
    row = {"messages": [{"role": "user", "content": [item]}], "picture": data, "clip": data}
    table = datasets.Dataset.from_list([row, row])
    text = datasets.Value("string")
    content = datasets.List({"type": text, "image": datasets.Image()})
    table = table.cast_column("messages", datasets.List({"role": text, "content": content}))
    # Never encoded: for that, sound needs one package more.
    table = table.cast_column("picture", datasets.Image()).cast_column("clip", datasets.Audio())
    table.save_to_disk(str(tmp_path / "saved"))
    table.to_parquet(str(tmp_path / "rows.parquet"))
    before = sorted(tmp_path.rglob("*"))
    for path in (tmp_path / "saved", tmp_path / "rows.parquet"):
        rows = list(table_rows(path))
        assert len(rows) == 2
        kept = {"bytes": data["bytes"]}
        assert rows[0]["picture"] == rows[0]["clip"] == kept
        assert rows[0]["messages"][0]["content"] == [{"type": "image", "image": kept}]
    assert sorted(tmp_path.rglob("*")) == before


def test_without_datasets_a_table_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "rows.parquet").touch()
    with pytest.raises(ConfigError, match=r"rows.parquet needs datasets; pip install"):
        list(reader().rows([tmp_path / "rows.parquet"]))
    with pytest.raises(InputError, match=r"a .parquet or .arrow table"):
        list(reader().rows([tmp_path / "rows.csv"]))
