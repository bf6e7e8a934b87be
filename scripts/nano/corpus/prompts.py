"""Recorded speech: the prompts of the Asterisk telephone exchange in four languages.

In: recordings of 8 kHz and their transcripts. Out: `train/prompts.jsonl`, and
`heldout/{transcribe,speech_translate}_prompts.jsonl` of other sentences by the same speakers and
`heldout/{transcribe,speech_translate}_menardi.jsonl` of those sentences by a speaker who is in no
training clip. The split is by the prompt's key, the same in all languages.
"""

from __future__ import annotations

import gzip
import re
import wave
from pathlib import Path

import numpy as np
from scripts.nano.corpus import clips, rows
from scripts.nano.corpus.clips import Clip
from scripts.nano.corpus.languages import LANGUAGES

SPEAKERS = {"en": "Allison", "es": "Allison", "fr": "June", "it": "Carlo"}
HELD_OUT = 6  # one key in so many
SPELLING = ("letters/", "phonetic/")  # said, but translated by another letter or word
LONGEST = 6.0  # seconds


def transcripts(path: Path, language: str) -> dict[str, str]:
    """What is said, by key; sounds that are no speech and damaged texts are left out."""
    data = gzip.decompress(path.read_bytes())
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    found = {}
    for line in text.splitlines():
        match = re.match(r"([^;:\s][^:]*?)\s*:\s*(\S.*)", line)
        if match is None or re.search(r"[\[\](<>]|\w\?\w| \? |\ufffd", match[2]):
            continue
        found[match[1]] = spelled(match[2], language)
    return found


def spelled(text: str, language: str) -> str:
    """The text with its numbers as words and plain apostrophes."""
    code = "pt_BR" if language == "pt" else language

    def words(digits: re.Match[str]) -> str:
        from num2words import (  # type: ignore[import-untyped, import-not-found, unused-ignore]
            num2words,
        )

        return str(num2words(int(digits[0]), lang=code))

    text = re.sub(r"\d+", words, text)
    text = text.replace("\u2019", "'").replace("\u2026", "...").removesuffix("...").strip()
    return " ".join(text.split())


def recordings(folder: Path) -> dict[str, Path]:
    """Sound files by key: the path below the speaker's directory, without its ending."""
    root = next((folder / "usr" / "share" / "asterisk" / "sounds").iterdir())
    return {
        str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.wav"))
    }


def clip_of(key: str, kind: str, language: str, voice: str, texts: dict[str, str]) -> Clip:
    """The clip of one recording."""
    name = clips.file_name(kind, language, voice, key)
    held_out = rows.is_held_out("prompt", key, HELD_OUT)
    if key.startswith(SPELLING):
        texts = {language: texts[language]}
    return Clip(held_out, name, language, f"recorded {voice}", texts)


def convert(source: Path, target: Path) -> bool:
    """Write the recording as a clip, if it is speech of a fitting length."""
    if target.exists():
        return True
    with wave.open(str(source)) as file:
        rate = file.getframerate()
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    samples = clips.trimmed(clips.real(raw), rate)
    if not 0.2 * rate < len(samples) < LONGEST * rate:
        return False
    clips.save(samples, rate, target)
    return True


def build(sources: Path, cache: Path, limit: int) -> None:
    """Convert the recordings and write the rows; `limit` of each speaker if not 0."""
    said: dict[str, dict[str, str]] = {}
    for language in SPEAKERS:
        path = next((sources / f"prompts-{language}").rglob("*.gz"))
        for key, text in transcripts(path, language).items():
            said.setdefault(key, {})[language] = text
    made: dict[str, list[Clip]] = {"prompts": [], "menardi": []}
    speakers = [("prompts", x, SPEAKERS[x], f"prompts-{x}-wav") for x in SPEAKERS]
    speakers.append(("menardi", "it", "Menardi", "prompts-it-menardi"))
    for kind, language, voice, folder in speakers:
        found = [
            (clip_of(key, kind, language, voice, said[key]), path)
            for key, path in recordings(sources / folder).items()
            if language in said.get(key, {})
        ]
        for clip, path in found[: limit or None]:
            if (kind == "prompts" or clip.held_out) and convert(
                path, cache / clip.split / clip.file
            ):
                made[kind].append(clip)
    for kind, listed in made.items():
        clips.write(unheard(listed, made["prompts"]), cache, kind, 0)


def unheard(listed: list[Clip], known: list[Clip]) -> list[Clip]:
    """The clips without those held-out ones whose text a training clip says in any language."""
    trained = {
        clip.texts[x] for clip in known if not clip.held_out for x in LANGUAGES if x in clip.texts
    }
    return [clip for clip in listed if not clip.held_out or not trained & set(clip.texts.values())]
