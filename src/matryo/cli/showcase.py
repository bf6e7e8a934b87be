"""What `matryo demo` asks the embedded model: about a picture, a voice and a phrase.

In: `data/demo`, which holds a picture and a clip that were held out from training, and what is
right to say about them. Out: `Question`s in the words that the model was trained with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matryo.speech.prompts import LANGUAGES, speech_prompt, split_answer

DIRECTORY = Path(__file__).parent.parent / "data" / "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One thing to ask.

    section: picture, speech, phrase, or prompt · about: a line for people, the same in a section
    label: what differs inside it · content: of the user's turn · right: the answer; None if there
    is no such thing · to: the language that the answer to a clip ends with · file: what is shown
    """

    section: str
    about: str
    label: str
    content: list[dict[str, Any]]
    right: str | None = None
    to: str | None = None
    file: Path | None = None

    def answer(self, text: str) -> str:
        """What counts of a generated text, in one line."""
        told = text if self.to is None else split_answer(text, self.to)[1]
        return " ".join((told or "").split())

    def is_right(self, answer: str) -> bool:
        """Whether the answer is the right one, but for case and punctuation."""
        from matryo.evaluate.metrics import normalised

        return self.right is not None and normalised(answer) == normalised(self.right)


def questions(directory: Path = DIRECTORY) -> list[Question]:
    """All of them. Raises OSError if the installation lacks the files."""
    document = json.loads((directory / "demo.json").read_text(encoding="utf-8"))
    return [
        *_picture(directory, **document["picture"]),
        *_speech(directory, **document["speech"]),
        *_phrase(**document["phrase"]),
    ]


def prompted(prompt: str) -> Question:
    """What the user asks."""
    return Question(
        section="prompt", about=prompt, label="", content=[{"type": "text", "text": prompt}]
    )


def _picture(
    directory: Path, file: str, credit: str, captions: dict[str, str]
) -> Iterator[Question]:
    path = directory / file
    for language, caption in captions.items():
        name = LANGUAGES[language]
        asked = {"type": "text", "text": f"Caption in {name}."}
        yield Question(
            section="picture",
            about=f"What is this? ({credit})",
            label=name,
            content=[{"type": "image", "image": str(path)}, asked],
            right=caption,
            file=path,
        )


def _speech(
    directory: Path, file: str, credit: str, language: str, text: str, translations: dict[str, str]
) -> Iterator[Question]:
    path = directory / file
    about = f"What is said? ({credit})"
    sound = {"type": "audio", "audio": str(path)}
    for to, right in ((None, text), *translations.items()):
        yield Question(
            section="speech",
            about=about,
            label=LANGUAGES[to or language],
            content=[{"type": "text", "text": speech_prompt(language, to)}, sound],
            right=right,
            to=to,
            file=path,
        )


def _phrase(language: str, text: str, translations: dict[str, str]) -> Iterator[Question]:
    for to, right in translations.items():
        asked = f"Translate to {LANGUAGES[to]}: {text}"
        yield Question(
            section="phrase",
            about=f"“{text}” ({LANGUAGES[language]}, not in the training texts)",
            label=LANGUAGES[to],
            content=[{"type": "text", "text": asked}],
            right=right,
        )
