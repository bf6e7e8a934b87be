"""Texts become rows: every token once an epoch, from any position; bad rows are named."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.recipes import TOKENIZER, sentences
from matryo.errors import CheckpointError, InputError
from matryo.inputs.tokenizer import Tokenizer
from matryo.train.data import Corpus, Shuffled, open_corpus


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(TOKENIZER / "tokenizer.json", bos_id=2)


def opened(tokenizer: Tokenizer, directory: Path, *names: str, **options: Any) -> Corpus:
    files = [directory / name for name in names]
    return open_corpus(files, tokenizer, directory / "cache", end_id=1, **options)


def filled(path: Path, data: bytes) -> None:
    """As `write_bytes`, with a time that nobody had before: clocks may be coarse."""
    path.write_bytes(data)
    time = 10**18 + 10**9 * int.from_bytes(data[:4], "big")
    os.utime(path, ns=(time, time))


def test_documents_follow_each_other_without_padding(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A house.")
    (tmp_path / "b.jsonl").write_text('{"text": "Grüße"}\n\n{"text": "Rain", "more": 1}\n')
    corpus = opened(tokenizer, tmp_path, "a.txt", "b.jsonl")
    wanted = [
        token for text in ("A house.", "Grüße", "Rain") for token in [2, *tokenizer.encode(text), 1]
    ]
    assert corpus.tokens.tolist() == wanted
    assert (corpus.num_documents, corpus.num_bytes, corpus.bad_rows) == (3, 8 + 7 + 4, ())
    rows = [corpus.row(number, 4) for number in (0, 1)]
    assert [row.ids.tolist() for row in rows] == [
        wanted[0:5],
        wanted[4:9],
    ]  # each id is a label exactly once


def test_a_cache_is_believed_until_something_changes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.")
    first = opened(tokenizer, tmp_path, "a.txt")
    written = (tmp_path / "cache" / "tokens.bin").stat().st_mtime_ns
    opened(tokenizer, tmp_path, "a.txt")
    assert (tmp_path / "cache" / "tokens.bin").stat().st_mtime_ns == written
    (tmp_path / "a.txt").write_text("One and two.")
    assert len(opened(tokenizer, tmp_path, "a.txt").tokens) > len(first.tokens)
    (tmp_path / "cache" / "tokens.bin").write_bytes(b"short")
    assert len(opened(tokenizer, tmp_path, "a.txt").tokens) > len(first.tokens)


BAD = [
    (b"{broken", "not JSON"),
    (b"[1]", "expected an object, got list"),
    (b'{"txt": "x"}', "no text in 'text'"),
    (b'{"text": 3}', "no text in 'text'"),
    (b'{"text": "  "}', "no text in 'text'"),
    (b'{"text": "\xff"}', "not UTF-8 at byte 10"),
    (b'{"text": "\\ud800"}', "surrogate"),
    (b"[" * 100_000, "not JSON"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_bad_row_is_named_and_fatal(
    tokenizer: Tokenizer, tmp_path: Path, row: bytes, reason: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n' + row + b"\n")
    with pytest.raises(InputError, match=f"a.jsonl:2: .*{reason}.*; repair it$"):
        opened(tokenizer, tmp_path, "a.jsonl")
    with pytest.raises(InputError, match=f"a.jsonl:2: .*{reason}.*; try --skip$"):
        opened(tokenizer, tmp_path, "a.jsonl", advice="try --skip")
    assert not (tmp_path / "cache" / "tokens.bin").exists()


def test_bad_rows_are_skipped_and_counted_on_request(tokenizer: Tokenizer, tmp_path: Path) -> None:
    lines = [b'{"text": "good"}', *(row for row, _ in BAD), b'{"text": "better"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    notes: list[str] = []
    corpus = opened(tokenizer, tmp_path, "a.jsonl", bad_rows="skip", note=notes.append)
    assert corpus.num_documents == 2 and len(corpus.bad_rows) == len(BAD)
    assert notes[0].startswith("8 rows skipped: a.jsonl:2: not JSON") and "3 more" in notes[0]
    opened(tokenizer, tmp_path, "a.jsonl", bad_rows="skip", note=notes.append)
    assert notes[1:] == notes[:1]  # out of the cache too


def test_a_file_inside_a_table_directory_is_seen_to_change(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines(path: Path) -> Iterator[dict[str, str]]:
        yield {"text": (path / "data.arrow").read_text()}

    monkeypatch.setattr("matryo.train.documents.table_rows", lines)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{}")
    filled(tmp_path / "saved" / "data.arrow", b"One.")
    first = opened(tokenizer, tmp_path, "saved")
    filled(tmp_path / "saved" / "data.arrow", b"Two.")  # in place: the directory stays as it was
    assert opened(tokenizer, tmp_path, "saved").digest != first.digest


def test_files_that_cannot_be_used(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(InputError, match=r"expected a .txt or .jsonl"):
        opened(tokenizer, tmp_path, "a.csv")
    with pytest.raises(CheckpointError, match=r"none.txt: cannot be read: No such file"):
        opened(tokenizer, tmp_path, "none.txt")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match=r"no usable text in empty.jsonl"):
        opened(tokenizer, tmp_path, "empty.jsonl")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"latin.txt: not UTF-8 at byte 3"):
        opened(tokenizer, tmp_path, "latin.txt")
    (tmp_path / "a.txt").write_text("Short.")
    with pytest.raises(InputError, match="one row needs 101"):
        Shuffled(opened(tokenizer, tmp_path, "a.txt"), 100, 0)


def test_each_row_comes_once_an_epoch_from_any_position(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rows = [json.dumps({"text": sentences(seed, 3)}) for seed in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    shuffled = Shuffled(opened(tokenizer, tmp_path, "a.jsonl"), 8, seed=4)
    count = shuffled.num_rows
    order = shuffled.indices(0, 3 * count)
    for epoch in range(3):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert order[:count] != order[count : 2 * count]
    again = Shuffled(shuffled.corpus, 8, seed=4)
    for position in (0, 3, count - 1, 2 * count + 1):
        assert again.indices(position, 2) == order[position : position + 2]
    assert (
        np.array_equal(Shuffled(shuffled.corpus, 8, seed=5).indices(0, count), order[:count])
        is False
    )
