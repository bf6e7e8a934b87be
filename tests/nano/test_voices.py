"""Who says what: held-out voices, and what they are mixed of, say no training clip."""

from __future__ import annotations

import pytest
from scripts.nano.corpus import clips, espeak, kokoro, translation
from scripts.nano.corpus.languages import LANGUAGES
from scripts.nano.corpus.phrases import Texts


@pytest.fixture(scope="module")
def meanings() -> list[Texts]:
    return translation.meanings(300)


def voices_of(made: list[clips.Clip]) -> set[str]:
    """Names without the synthesiser, those of mixtures apart."""
    return {voice for clip in made for voice in clip.voice.split(" ")[1].split("+")}


def test_espeak_voices_are_on_one_side_in_all_languages(meanings: list[Texts]) -> None:
    trained: set[str] = set()
    secret: set[str] = set()
    for language in LANGUAGES:
        trained |= voices_of(espeak.planned(meanings, language, False, 400))
        secret |= voices_of(espeak.planned(meanings, language, True, 400))
    assert secret == set(espeak.UNSEEN)
    assert trained == set(espeak.VOICES) - secret


def test_kokoro_mixes_training_voices_only(meanings: list[Texts]) -> None:
    trained: set[str] = set()
    for language in LANGUAGES:
        made = kokoro.planned(meanings, language, False, 200)
        trained |= voices_of(made)
        # Some voices are pure, some are mixed with a second one.
        mixed = sum("+" in clip.voice for clip in made)
        assert 60 < mixed < 190
        assert all(clip.voice.split(" ")[1].split("+")[0] in kokoro.VOICES[language]
                   for clip in made)  # fmt: skip
    secret = {voice for language in LANGUAGES for voice in kokoro.UNSEEN[language]}
    assert not trained & (secret | {"pm_alex"})
    assert {"em_alex", "im_nicola", "pm_alex", "bf_emma"} <= secret


def test_clips_have_files_of_their_own_and_a_fitting_length(meanings: list[Texts]) -> None:
    made = espeak.planned(meanings, "fr", False, 100)
    assert made == espeak.planned(meanings, "fr", False, 100)
    assert len({clip.file for clip in made}) == 100
    assert all(len(clip.texts["fr"]) in clips.LETTERS for clip in made)
    assert all(clip.split == "train" and not clip.held_out for clip in made)


def test_rows_of_a_clip() -> None:
    texts = {"en": "The cat sleeps.", "es": "El gato duerme."}
    clip = clips.Clip(True, "speech/a.ogg", "es", "espeak m3", texts)
    row = clips.translation(clip, "en", 1.5)
    assert row["messages"][0]["content"] == [
        {"type": "audio", "audio": "speech/a.ogg"},
        {"type": "text", "text": "Translate to English."},
    ]
    assert row["messages"][1]["content"][0]["text"] == "The cat sleeps."
    assert (row["source"], row["lang"], row["said"]) == ("es", "en", "El gato duerme.")
    assert clips.transcription(clip, 1.5)["messages"][1]["content"][0]["text"] == "El gato duerme."
