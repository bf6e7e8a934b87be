"""Rows and splits: what is held out depends on the thing alone, and leaks are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts.nano.corpus import clips, finish, leaks, prompts, rows, sources, translation
from scripts.nano.corpus.clips import Clip
from scripts.nano.corpus.languages import LANGUAGES


def test_split_is_fixed_and_has_the_share_it_says() -> None:
    chosen = [number for number in range(4000) if rows.is_held_out("meaning", str(number))]
    assert 150 < len(chosen) < 250  # one in twenty
    assert chosen[:3] == [3, 56, 61]
    assert chosen != [n for n in range(4000) if rows.is_held_out("word", str(n))]


def test_a_row_is_a_conversation_with_media_in_its_order() -> None:
    prompt = [rows.image("pics/a.png"), rows.text("Caption in French.")]
    row = rows.chat("emoji", "fr", prompt, "chat", concept="x")
    assert row["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": "pics/a.png"},
                {"type": "text", "text": "Caption in French."},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "chat"}]},
    ]
    assert (row["task"], row["lang"], row["concept"]) == ("emoji", "fr", "x")
    assert rows.media(row) == ["pics/a.png"]
    assert rows.texts(row) == ["Caption in French.", "chat"]
    assert rows.answer(row) == "chat"


def test_files_keep_rows_and_an_order_of_their_own(tmp_path: Path) -> None:
    listed = [rows.chat("sum", "en", f"What is {n}?", "é") for n in range(30)]
    path = tmp_path / "train" / "facts.jsonl"
    assert rows.write(path, listed, order="facts", limit=10) == 10
    first = rows.read(path)
    rows.write(path, listed, order="facts", limit=10)
    assert rows.read(path) == first
    assert first != listed[:10]
    assert all(row in listed for row in first)
    assert "é" in path.read_text("utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["facts.jsonl"]


def test_line_ends_that_json_leaves_in_texts_end_no_row(tmp_path: Path) -> None:
    listed = [rows.chat("sum", "en", f"a{end}b", f"c{end}") for end in "\u2028\u2029\x85\x1c\n"]
    rows.write(tmp_path / "facts.jsonl", listed)
    assert rows.read(tmp_path / "facts.jsonl") == listed


def test_held_out_meanings_share_no_sentence_with_training() -> None:
    found = translation.meanings(1500)
    trained = [texts for texts in found if not translation.is_held_out(texts)]
    secret = [texts for texts in found if translation.is_held_out(texts)]
    assert 30 < len(secret) < 150
    for language in LANGUAGES:
        assert not {t[language] for t in trained} & {t[language] for t in secret}
    assert found == translation.meanings(1500)


def test_directions_are_distinct_and_mostly_english() -> None:
    texts = dict(
        zip(LANGUAGES, ("a cat", "un gato", "un chat", "un gatto", "um gato"), strict=True)
    )
    made = list(translation.directions(texts, 3))
    pairs = {(row["source"], row["lang"]) for row in made}
    assert len(pairs) == 3
    assert sum("en" in pair for pair in pairs) == 2
    for row in made:
        assert rows.answer(row) == texts[row["lang"]]
        assert rows.texts(row)[0].endswith(f": {texts[row['source']]}")


def clip(held_out: bool, voice: str, words: str) -> Clip:
    texts = {"en": words, "fr": words}
    return Clip(held_out, clips.file_name("espeak", "en", voice, words), "en", voice, texts)


@pytest.mark.parametrize(
    ("trained", "secret", "found"),
    [
        (rows.chat("sum", "en", "1?", "2"), rows.chat("sum", "en", "1?", "2"), "question 1?"),
        (rows.chat("emoji", "en", [rows.image("pics/a.png")], "cat"),
         rows.chat("flags", "en", [rows.image("pics/a.png")], "Italy"), "file pics/a.png"),
        ({"text": "Call me."}, {"text": "Call me."}, "text Call me."),
        (clips.transcription(clip(False, "espeak m1", "A cat."), 1.0),
         clips.transcription(clip(True, "espeak m2", "A cat."), 1.0), "said A cat."),
        (clips.transcription(clip(False, "espeak m1", "A cat."), 1.0),
         clips.translation(clip(True, "espeak m1", "A dog."), "fr", 1.0), "voice espeak m1"),
    ],
)  # fmt: skip
def test_leaks_are_found(trained: rows.Row, secret: rows.Row, found: str) -> None:
    assert leaks.leaks([trained], [secret]) == [found]


def test_what_may_be_shared_is_no_leak() -> None:
    trained = clips.transcription(clip(False, "recorded Carlo", "Uno."), 1.0)
    secret = clips.transcription(clip(True, "recorded Carlo", "Due."), 1.0)
    assert leaks.leaks([trained], [secret]) == []


def test_recorded_prompts_are_split_by_key_and_text() -> None:
    made = [clip(False, "recorded A", "Goodbye."), clip(True, "recorded A", "Goodbye."),
            clip(True, "recorded A", "Hello.")]  # fmt: skip
    assert prompts.unheard(made, made) == [made[0], made[2]]
    one = prompts.clip_of("digits/1", "prompts", "en", "Allison", {"en": "one"})
    two = prompts.clip_of("digits/1", "menardi", "it", "Menardi", {"it": "uno"})
    assert one.held_out == two.held_out
    assert one.file != two.file
    letter = prompts.clip_of("letters/y", "prompts", "en", "Allison", {"en": "y", "es": "i griega"})
    assert letter.texts == {"en": "y"}


def build_tiny(cache: Path, secret: str) -> None:
    """A cache with one row in each split."""
    for split, words in (("train", "A cat."), ("heldout", secret)):
        file = cache / split / "pics" / f"{split}.png"
        file.parent.mkdir(parents=True)
        file.write_bytes(split.encode())
        row = rows.chat("emoji", "en", [rows.image(f"pics/{split}.png")], "cat")
        rows.write(cache / split / "emoji.jsonl", [row])
        rows.write(cache / split / "prose.jsonl", [{"text": words}])


def test_manifest_counts_and_hashes(tmp_path: Path) -> None:
    build_tiny(tmp_path, "A dog.")
    finish.finish(tmp_path, ["wordnet", "art-noto", "wordnet"], "quick")
    manifest = json.loads((tmp_path / "manifest.json").read_text("utf-8"))
    assert [entry["key"] for entry in manifest["sources"]] == ["art-noto", "wordnet"]
    assert all(entry["licence"] and entry["attribution"] for entry in manifest["sources"])
    assert manifest["files"]["heldout/emoji.jsonl"] == {
        "rows": 1, "languages": {"en": 1}, "media": 1,
    }  # fmt: skip
    lines = (tmp_path / "heldout.sha256").read_text("utf-8").splitlines()
    assert [line.split()[1] for line in lines] == [
        "heldout/emoji.jsonl", "heldout/prose.jsonl", "heldout/pics/heldout.png",
    ]  # fmt: skip


def test_a_digest_is_of_what_is_asked_not_of_how_long_a_clip_became(tmp_path: Path) -> None:
    digests = []
    for length, said in ((1.25, "Due."), (1.27, "Due."), (1.25, "Tre.")):
        row = clips.transcription(clip(True, "kokoro im_nicola", said), length)
        rows.write(tmp_path / "speech.jsonl", [row])
        digests.append(finish.digest(tmp_path / "speech.jsonl"))
    assert digests[0] == digests[1] != digests[2]
    rows.write(tmp_path / "prose.jsonl", [{"text": "Á"}])
    assert finish.digest(tmp_path / "prose.jsonl") == sources.sha256(tmp_path / "prose.jsonl")


def test_a_leak_or_a_missing_picture_stops_the_build(tmp_path: Path) -> None:
    build_tiny(tmp_path / "a", "A cat.")
    with pytest.raises(SystemExit, match=r"1 things are in both splits: text A cat\."):
        finish.finish(tmp_path / "a", [], "quick")
    build_tiny(tmp_path / "b", "A dog.")
    (tmp_path / "b" / "train" / "pics" / "train.png").unlink()
    with pytest.raises(SystemExit, match=r"1 media are missing: train/pics/train\.png"):
        finish.finish(tmp_path / "b", [], "quick")
