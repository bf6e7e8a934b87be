"""Broken and hostile tokenizer files, and the small things a tokenizer does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.text_files import gemma_like
from matryo.errors import CheckpointError, InputError
from matryo.inputs import tokenizer as module
from matryo.inputs.tokenizer import Tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"model": {}}',
        '{"model": {"type": "Evil"}}',
        "[" * 100_000,
        '{"a": NaN}',
    ],
)
def test_what_is_no_tokenizer_is_a_checkpoint_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match="tokenizer"):
        Tokenizer.from_file(path)


def test_bytes_that_are_no_text_and_missing_files_are_checkpoint_errors(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Tokenizer.from_file(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Tokenizer.from_file(tmp_path / "missing.json")


def test_size_limits_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(gemma_like()))
    monkeypatch.setattr(module, "MAX_TOKENS", 10)
    with pytest.raises(CheckpointError, match="at most 10 tokens"):
        Tokenizer.from_file(path)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 10)
    with pytest.raises(CheckpointError, match="at most 10 bytes"):
        Tokenizer.from_file(path)


def test_truncation_and_padding_of_the_file_are_ignored() -> None:
    document = gemma_like()
    document["truncation"] = {
        "direction": "Right",
        "max_length": 2,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    assert len(Tokenizer.from_text(json.dumps(document)).encode("aaaa")) == 4


def test_special_tokens_are_found_in_text_but_never_added() -> None:
    tokenizer = Tokenizer.from_text(json.dumps(gemma_like()))
    assert tokenizer.encode("a") == tokenizer.encode("<bos>a")[1:]
    assert tokenizer.encode("<bos>") == [2] == [tokenizer.id_of("<bos>")]
    assert tokenizer.id_of("<nothing>") is None


def test_surrogates_are_an_input_error() -> None:
    with pytest.raises(InputError, match="cannot be tokenised"):
        Tokenizer.from_text(json.dumps(gemma_like())).encode("\ud800")
