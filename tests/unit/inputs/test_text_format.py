"""The text files of a checkpoint: found, missing, broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.text_files import CHAT_TEMPLATE, gemma_like
from matryo.errors import CheckpointError, InputError
from matryo.inputs import text_format as module
from matryo.inputs.text_format import TextFormat, read_json_object

MESSAGES = [{"role": "user", "content": "Hi"}]


def test_without_files_only_ids_work(tmp_path: Path) -> None:
    text = TextFormat(tmp_path, bos_id=2)
    assert not text.has_tokenizer
    with pytest.raises(InputError, match=r"no tokenizer\.json: give token ids"):
        _ = text.tokenizer
    with pytest.raises(InputError, match="no chat template: give a text"):
        _ = text.chat_template


def test_the_tokenizer_is_opened_once_and_knows_where_a_text_begins(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(gemma_like()), encoding="utf-8")
    text = TextFormat(tmp_path, bos_id=2)
    assert text.has_tokenizer and text.tokenizer is text.tokenizer
    assert text.tokenizer.encode("a", bos=True)[0] == 2
    with pytest.raises(InputError, match="no token that begins a text"):
        TextFormat(tmp_path, bos_id=None).tokenizer.encode("a", bos=True)


def test_templates_beside_or_inside_the_settings(tmp_path: Path) -> None:
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps({"chat_template": "{{ bos_token }}inside", "bos_token": "<s>"}))
    assert TextFormat(tmp_path, bos_id=2).chat_template.render(MESSAGES) == "<s>inside"
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}beside")
    assert TextFormat(tmp_path, bos_id=2).chat_template.render(MESSAGES) == "<s>beside"
    settings.write_text(json.dumps({"bos_token": {"content": "<x>"}, "eos_token": 3}))
    assert TextFormat(tmp_path, bos_id=2).chat_template.render(MESSAGES) == "<x>beside"
    settings.unlink()
    (tmp_path / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    assert TextFormat(tmp_path, bos_id=2).chat_template.render(MESSAGES).startswith("<bos><start")


def test_templates_that_are_no_string(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": [{"name": "a"}]}')
    with pytest.raises(InputError, match="no chat template"):
        _ = TextFormat(tmp_path, bos_id=2).chat_template


def test_small_json_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    assert read_json_object(path) == {}
    path.write_text('{"a": 1}')
    assert read_json_object(path) == {"a": 1}
    for text in ("[]", "3", "{", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(CheckpointError, match="expected"):
            read_json_object(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(CheckpointError, match="expected JSON"):
        read_json_object(path)
    monkeypatch.setattr(module, "MAX_JSON_BYTES", 3)
    with pytest.raises(CheckpointError, match="at most 3 bytes"):
        read_json_object(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        (tmp_path / "folder").mkdir()
        monkeypatch.setattr(module, "MAX_JSON_BYTES", 1 << 20)
        read_json_object(tmp_path / "folder")
