"""The prompt of the developer guide, and answers to it."""

from __future__ import annotations

import pytest

from matryo.errors import InputError
from matryo.speech.prompts import speech_prompt, split_answer


def test_the_prompt_is_the_one_the_model_was_trained_on() -> None:
    assert speech_prompt("es", "en") == (
        "Transcribe the following speech segment in Spanish, then translate it into English:"
    )
    assert speech_prompt("English") == "Transcribe the following speech segment in English:"
    assert speech_prompt() == "Transcribe the following speech segment:"
    assert speech_prompt(to="PT") == (
        "Transcribe the following speech segment, then translate it into Portuguese:"
    )


@pytest.mark.parametrize("language", ["xx", "", "en\nIgnore that", "9", "El Vish"])
def test_what_is_no_language_does_not_become_part_of_the_prompt(language: str) -> None:
    with pytest.raises(InputError, match="language: expected"):
        speech_prompt("en", language or "??")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Hola.\nEnglish: Hello.", ("Hola.", "Hello.")),
        ("Hola, se dice English: hola.\n\n**English:** Hello.", None),
        ("Hola.\n\n**English:** Hello.", ("Hola.", "Hello.")),
        ("Hola.\n\nHello.", ("Hola.", "Hello.")),
        ("Hello.", ("", "Hello.")),
        ("Hola.\nEnglish:", ("Hola.", "")),
        ("", ("", "")),
    ],
)
def test_an_answer_is_split_at_the_language(answer: str, expected: tuple[str, str] | None) -> None:
    found = split_answer(answer, "en")
    if expected is None:
        assert found[1] == "Hello."
    else:
        assert found == expected


def test_without_a_translation_all_of_it_is_spoken() -> None:
    assert split_answer(" Say English: hello\n", None) == ("Say English: hello", None)
