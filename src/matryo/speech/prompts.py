"""What a speech model is asked, and what its answer means.

In: languages. Out: the text that stands before the sound; from an answer, the words as spoken and
their translation.
Source: the prompt for speech in the developer guide of Gemma 3n, which asks for the transcription
before the translation.
"""

from __future__ import annotations

from matryo.errors import InputError

LANGUAGES = {
    "ar": "Arabic", "de": "German", "en": "English", "es": "Spanish", "fr": "French",
    "hi": "Hindi", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ru": "Russian", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def language_name(language: str) -> str:
    """The English name of a language given as a code or by that name.

    Raises InputError for anything else: it would become part of the prompt.
    """
    if language.lower() in LANGUAGES:
        return LANGUAGES[language.lower()]
    if language.isalpha() and len(language) > 3:
        return language.capitalize()
    raise InputError(
        f"language: expected one of {', '.join(LANGUAGES)}, or a name such as Swedish, got "
        f"{language!r:.40}"
    )


def speech_prompt(language: str | None = None, to: str | None = None) -> str:
    """The text before a clip; `language` is spoken in it, `to` is the one to translate into.

    Raises InputError for a language that is none.
    """
    spoken = f" in {language_name(language)}" if language else ""
    translation = f", then translate it into {language_name(to)}" if to else ""
    return f"Transcribe the following speech segment{spoken}{translation}:"


def split_answer(answer: str, to: str | None) -> tuple[str, str | None]:
    """Words as spoken, and their translation if one was asked for.

    The translation is what follows its language's name and a colon, or else the last of several
    lines; an answer of one line without a mark is taken as the translation of words not written
    down.
    """
    if to is None:
        return answer.strip(), None
    mark = f"{language_name(to)}:"
    before, found, after = answer.rpartition(mark)
    if found:  # some answers set the mark in bold
        return before.rstrip("* \n"), after.strip("* \n")
    first, separator, last = answer.strip().rpartition("\n")
    return (first.strip(), last.strip()) if separator else ("", answer.strip())
