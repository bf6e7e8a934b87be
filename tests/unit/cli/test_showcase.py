"""What the demo asks, what counts of an answer, and how a picture and a voice are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.media import encoded, sound_file, tone
from matryo.cli.showcase import DIRECTORY, prompted, questions
from matryo.cli.sketch import picture, wave
from matryo.errors import InputError
from matryo.speech.prompts import LANGUAGES


def test_every_question_has_a_right_answer_and_its_file() -> None:
    asked = questions()
    assert {one.section for one in asked} == {"picture", "speech", "phrase"}
    assert [one.label for one in asked if one.section == "picture"] == [
        "English", "Spanish", "French", "Italian", "Portuguese",
    ]  # fmt: skip
    for one in asked:
        assert one.right and one.is_right(one.right.upper() + "!")
        assert not one.is_right("") and not one.is_right(one.right + " no")
        assert (one.file is None) == (one.section == "phrase")
        assert one.file is None or one.file.is_file()
    texts = [item["text"] for one in asked for item in one.content if item["type"] == "text"]
    assert len(set(texts)) == len(asked)
    credits = (DIRECTORY / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in credits for name in ("picture.png", "speech.ogg"))


def test_a_translation_is_what_follows_the_words_as_spoken() -> None:
    spoken, translated, *_ = (one for one in questions() if one.section == "speech")
    assert spoken.answer("Good\nmorning") == "Good morning"
    assert translated.to is not None
    told = f"Good morning\n{LANGUAGES[translated.to]}: Buenos  días"
    assert translated.answer(told) == "Buenos días"
    assert prompted("Hi").is_right("Hi") is False


def test_a_picture_is_drawn_two_pixels_a_character(tmp_path: Path) -> None:
    path = tmp_path / "halves.png"
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[:2], rgb[2:] = (255, 0, 0), (0, 0, 255)
    path.write_bytes(encoded(Image.fromarray(rgb), "PNG"))
    text = picture(path, 4)
    assert text.plain == "▀▀▀▀\n" * 2
    assert [str(span.style) for span in text.spans] == 4 * ["rgb(255,0,0) on rgb(255,0,0)"] + 4 * [
        "rgb(0,0,255) on rgb(0,0,255)"
    ]


def test_a_sound_is_drawn_as_loud_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    samples = tone(1.0)
    samples[:, : samples.shape[1] // 2] *= 0.01
    path.write_bytes(sound_file(samples, 16000, "wav", "pcm_s16le"))
    drawn = wave(path, 8).plain
    assert drawn[:4].strip() == "" and drawn[4:] == "████"
    path.write_bytes(sound_file(0 * samples, 16000, "wav", "pcm_s16le"))
    assert wave(path, 8).plain == " " * 8


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no")
    with pytest.raises(InputError, match="picture"):
        picture(tmp_path / "x.png")
