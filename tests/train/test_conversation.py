"""A row's ids are those a session is given, and only answers are learned."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import matryo
from helpers.media_rows import asked, text, write_media, write_rows
from helpers.media_text import write_text_files
from helpers.tiny_multimodal import tiny_multimodal, write_multimodal
from helpers.towers import multimodal_config
from matryo.errors import InputError
from matryo.inputs.text_format import TextFormat
from matryo.inputs.tokenizer import Tokenizer
from matryo.tower_config import NO_TOWERS, TowerConfig
from matryo.train.conversation import ConversationEncoder, towers_of
from matryo.train.data import Corpus, open_corpus
from matryo.train.documents import Conversation
from matryo.train.media_store import MediaShape

ENDS = [1, 491]
SHAPE = MediaShape(image_size=64, num_mels=128, clip_samples=30720)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_multimodal(tiny_multimodal(), tmp_path_factory.mktemp("tiny"))
    write_text_files(directory)
    return directory


def encoder(directory: Path, *, learned: Any = "answers") -> ConversationEncoder:
    towers = towers_of(TowerConfig.from_json(multimodal_config()), 96)
    return ConversationEncoder(TextFormat(directory, bos_id=2), towers, ENDS, learned)


def row(messages: list[Any], directory: Path) -> Conversation:
    return Conversation(messages, "rows.jsonl:1", directory)


def opened(checkpoint: Path, path: Path, **options: Any) -> Corpus:
    tokenizer = Tokenizer.from_file(checkpoint / "tokenizer.json", bos_id=2)
    given: dict[str, Any] = {"end_id": 1, "encoder": encoder(checkpoint), "media": SHAPE, **options}
    return open_corpus([path], tokenizer, path.parent / "cache", **given)


def test_the_prompt_of_a_row_is_that_of_a_session(checkpoint: Path, tmp_path: Path) -> None:
    with matryo.load(checkpoint, weights="f32") as model:
        for one in write_media(tmp_path)[:3]:
            found = encoder(checkpoint).encode(row(one["messages"], tmp_path))
            question = [dict(item) for item in one["messages"][0]["content"]]
            for item in question:
                for key in ("image", "audio", "path"):
                    if key in item:
                        item[key] = tmp_path / item[key]
            session = model.session()
            session.prefill([{"role": "user", "content": question}])
            prompt = session.ids
            learned = np.array(found.learned)
            first = int(learned.argmax())
            assert found.ids[:first] == list(prompt)
            answer = one["messages"][1]["content"][0]["text"]
            assert found.ids[first:] == [*model.tokenizer.encode(answer), 491]
            assert learned[first:].all() and not learned[:first].any()
            assert found.num_bytes == len(answer)


def test_every_answer_is_learned_and_nothing_between(checkpoint: Path, tmp_path: Path) -> None:
    turns = [{"role": role, "content": words} for role, words in
             [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "dd")]]  # fmt: skip
    found = encoder(checkpoint).encode(row(turns, tmp_path))
    tokenizer = Tokenizer.from_file(checkpoint / "tokenizer.json", bos_id=2)
    wanted = [*tokenizer.encode("b"), 491, *tokenizer.encode("dd"), 491]
    assert [token for token, known in zip(found.ids, found.learned, strict=True) if known] == wanted
    whole = TextFormat(checkpoint, bos_id=2).chat_template.render(
        turns, add_generation_prompt=False
    )
    assert found.ids == tokenizer.encode(whole)[: len(found.ids)]
    everything = encoder(checkpoint, learned="all").encode(row(turns, tmp_path))
    assert everything.learned.count(False) < 3 and everything.ids == found.ids


IMAGE = {"type": "image", "image": "media/0.png"}
BAD: list[tuple[Any, str]] = [
    ({"messages": []}, "at least one"),
    ({"messages": [{"role": "user"}]}, "role and content"),
    ({"messages": [{"role": "user", "content": "a"}]}, "no message of the assistant"),
    (asked(text("a"), answer="b", label={"a": 1}), "a text or a number, .* in 'label'"),
    (asked({"type": ["image"], "image": "media/0.png"}, answer="b"), "expected items"),
    (asked({"type": "image", "image": "a\0.png"}, answer="b"), "cannot be read: embedded null"),
    (asked({"type": "image", "image": {"bytes": 3}}, answer="b"), "its name or .*, got int"),
    (asked({"type": "image", "image": "media"}, answer="b"), "media"),
    (asked({"type": "image", "image": "gone.png"}, answer="b"), "gone.png: cannot be read"),
    (asked({"type": "image", "image": "media/0.wav"}, answer="b"), "0.wav"),
    (asked({"type": "audio", "audio": "media/0.png"}, answer="b"), "0.png"),
    (asked({"type": "image", "url": "http://x"}, answer="b"), "a file under image or path"),
    (asked({"type": "video", "video": "x"}, answer="b"), "expected items"),
    (asked({"type": "audio", "audio": "long.wav"}, answer="b"), "1.9 s: cut it"),
    (asked(text("a" * 300), answer="b"), "data.sequence is 100"),
    (asked(IMAGE, text("<image_soft_token>"), answer="b"), "placeholders"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_a_row_that_cannot_be_used_is_named_or_skipped(
    checkpoint: Path, tmp_path: Path, bad: Any, reason: str
) -> None:
    good = write_media(tmp_path)
    long = np.zeros(48_000, np.int16)
    header = b"RIFF" + (36 + long.nbytes).to_bytes(4, "little") + b"WAVEfmt \x10\0\0\0\1\0\1\0"
    header += (16000).to_bytes(4, "little") + (32000).to_bytes(4, "little") + b"\2\0\x10\0data"
    (tmp_path / "long.wav").write_bytes(header + long.nbytes.to_bytes(4, "little") + bytes(long))
    path = write_rows(tmp_path, [good[0], bad, *good[1:]])
    with pytest.raises(InputError, match=f"rows.jsonl:2: .*{reason}.*; repair it"):
        opened(checkpoint, path, longest=100)
    corpus = opened(checkpoint, path, longest=100, bad_rows="skip")
    assert corpus.num_rows(64) == len(good) and len(corpus.bad_rows) == 1


def test_media_are_decoded_once_and_as_at_run_time(checkpoint: Path, tmp_path: Path) -> None:
    from matryo.inputs.image import load_image
    from matryo.inputs.mel import MelFilters
    from matryo.inputs.sound import load_sound

    rows = write_media(tmp_path)
    corpus = opened(checkpoint, write_rows(tmp_path, rows + rows[:2]))
    assert corpus.media is not None
    samples = [corpus.row(number, 64) for number in range(len(rows) + 2)]
    assert samples[0].pictures == samples[len(rows)].pictures and samples[0].labels == ["thing 0"]
    assert samples[1].transcript == "c!"
    pixels = corpus.media.pixels(samples[3].pictures[0])
    assert np.array_equal(pixels, load_image(tmp_path / "media/1.png", 64))
    mel, valid = corpus.media.mel(samples[4].sounds[0])
    wanted, mask = MelFilters(128).clip(load_sound(tmp_path / "media/1.wav"))
    assert valid == mask.sum() and np.abs(mel - wanted).max() < 0.01
    (tmp_path / "media/1.png").unlink()  # the cache is of what was there
    with pytest.raises(InputError, match=r"1.png: cannot be read"):
        opened(checkpoint, tmp_path / "rows.jsonl")


def test_a_file_that_was_missing_or_broken_is_used_once_it_is_there(
    checkpoint: Path, tmp_path: Path
) -> None:
    path = write_rows(tmp_path, write_media(tmp_path))
    whole = opened(checkpoint, path, bad_rows="skip")
    picture = tmp_path / "media/1.png"
    data = picture.read_bytes()
    for damage in (picture.unlink, lambda: picture.write_bytes(b"no picture")):
        damage()
        notes: list[str] = []
        for _ in range(2):  # read, and out of the cache
            corpus = opened(checkpoint, path, bad_rows="skip", note=notes.append)
            assert corpus.num_rows(64) == whole.num_rows(64) - 1
        assert len(notes) == 2 and notes[0] == notes[1] and "1.png" in notes[0]
        picture.write_bytes(data)
        notes.clear()
        corpus = opened(checkpoint, path, bad_rows="skip", note=notes.append)
        assert (corpus.num_rows(64), corpus.digest, notes) == (
            whole.num_rows(64), whole.digest, [],
        )  # fmt: skip


def test_another_picture_is_another_digest_and_another_time_is_not(
    checkpoint: Path, tmp_path: Path
) -> None:
    path = write_rows(tmp_path, write_media(tmp_path))
    first = opened(checkpoint, path)
    os.utime(tmp_path / "media/0.png", ns=(1, 1))
    assert opened(checkpoint, path).digest == first.digest
    (tmp_path / "media/0.png").write_bytes((tmp_path / "media/1.png").read_bytes())
    assert opened(checkpoint, path).digest != first.digest


def test_the_digest_of_rows_without_media_is_that_of_their_ids(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Runs that began with an earlier version go on."""
    corpus = opened(checkpoint, write_rows(tmp_path, [asked(text("hi"), answer="yo")]))
    digest = hashlib.sha256(corpus.chats.tobytes() + corpus.learned.tobytes())
    digest.update(json.dumps(corpus.index).encode())
    assert corpus.digest == digest.hexdigest()


def test_numbers_are_labels(checkpoint: Path, tmp_path: Path) -> None:
    rows = [asked(text("a"), answer="b", label=label) for label in (3, [1, 2.5], "x")]
    assert opened(checkpoint, write_rows(tmp_path, rows)).labels == {"3", "1", "2.5", "x"}


def test_tables_may_hold_the_bytes_of_pictures_and_sounds(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_media(tmp_path)
    files = opened(checkpoint, write_rows(tmp_path, rows))
    for given in rows:
        for item in given["messages"][0]["content"]:
            for key in {"image", "audio", "path"} & set(item):
                file = tmp_path / item.pop(key)
                item[item["type"]] = {"bytes": file.read_bytes(), "path": file.name}
    named = {"type": "image", "image": {"path": "media/2.png"}}  # what is None was left out
    rows += [asked(named, text("what?"), answer="bbb"), {"messages": b"none"}]
    monkeypatch.setattr("matryo.train.documents.table_rows", lambda path: iter(rows))
    (tmp_path / "rows.parquet").touch()
    table = opened(checkpoint, tmp_path / "rows.parquet", bad_rows="skip")
    assert [one.partition(" ")[0] for one in table.bad_rows] == ["rows.parquet:11:"]
    assert files.media is not None and table.media is not None
    for number in range(len(files.index)):
        ours, theirs = table.row(number, 64), files.row(number, 64)
        assert ours.ids.tolist() == theirs.ids.tolist()
        for one, other in zip(ours.pictures, theirs.pictures, strict=True):
            assert np.array_equal(table.media.pixels(one), files.media.pixels(other))
        for one, other in zip(ours.sounds, theirs.sounds, strict=True):
            assert np.array_equal(table.media.mel(one)[0], files.media.mel(other)[0])
    last = table.media.pixels(table.row(len(files.index), 64).pictures[0])
    assert np.array_equal(last, files.media.pixels(2))


def test_changed_media_are_other_numbers_of_the_same_kind(checkpoint: Path, tmp_path: Path) -> None:
    shape = MediaShape(64, 128, 30720, picture_changes=1.0, sound_changes=1.0)
    corpus = opened(checkpoint, write_rows(tmp_path, write_media(tmp_path)), media=shape)
    store = corpus.media
    assert store is not None
    first, again, other = (store.pixels(0, np.random.default_rng(n)) for n in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.shape == (3, 64, 64) and first.min() >= 0 and first.max() <= 1
    for seed in range(20):
        mel, valid = store.mel(2, np.random.default_rng(seed))
        assert mel.dtype == np.float32 and 0 < valid <= len(mel) <= 192
        assert np.isfinite(mel).all()


def test_a_model_of_text_refuses_pictures(checkpoint: Path, tmp_path: Path) -> None:
    alone = ConversationEncoder(
        TextFormat(checkpoint, bos_id=2), towers_of(NO_TOWERS, 96), ENDS, "answers"
    )
    with pytest.raises(InputError, match="no encoder of pictures"):
        alone.encode(row(asked(IMAGE, answer="b")["messages"], tmp_path))


def test_rows_are_json_that_others_write(checkpoint: Path, tmp_path: Path) -> None:
    """Names of messages, and keys of rows that nobody asks for, are no mistake."""
    message = {"role": "user", "content": "a", "name": "Eva"}
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps({"messages": [message, {"role": "assistant", "content": "b"}], "task": 1})
    )
    assert opened(checkpoint, path).num_rows(64) == 1
