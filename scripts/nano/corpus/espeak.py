"""Robotic speech of many voices in five languages, by espeak-ng.

In: the grammar's sentences; `espeak-ng` on the path. Out: `train/espeak.jsonl`,
`heldout/transcribe_espeak.jsonl`, `heldout/speech_translate_espeak.jsonl`. Held out are sentences
and, all over the languages, voices.
"""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np
from scripts.nano.corpus import clips, rows
from scripts.nano.corpus.clips import Clip, Samples
from scripts.nano.corpus.languages import LANGUAGES
from scripts.nano.corpus.phrases import Texts

TRAINED, HELD_OUT = 1_800, 60  # clips of each language
ACCENTS = {
    "en": ("en-us", "en-gb", "en-gb-scotland"), "es": ("es", "es-419"), "fr": ("fr-fr", "fr-be"),
    "it": ("it",), "pt": ("pt-br",),
}  # fmt: skip
VOICES = (
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 Alex Andy Annie adam anikaRobot antonio aunty belinda "
    "boris Diogo ed edward Gene Jacky Lee linda Mario max Michael miguel Mr_serious pablo paul "
    "pedro quincy rob robert steph steph2 Tweaky victor"
).split()
UNSEEN = ("m3", "f2", "Annie", "Gene", "linda", "pedro", "steph", "max")


def planned(meanings: list[Texts], language: str, held_out: bool, number: int) -> list[Clip]:
    """Who says what."""
    voices = [v for v in VOICES if (v in UNSEEN) == held_out]
    key = f"espeak {language} {held_out}"
    rng = rows.generator(f"{key} voices")
    found = []
    for texts in clips.fitting(meanings, language, key, number):
        voice = f"espeak {rng.choice(voices)}"
        file = clips.file_name("espeak", language, voice, texts[language])
        found.append(Clip(held_out, file, language, voice, texts))
    return found


def spoken(clip: Clip) -> tuple[Samples, int]:
    """The samples and their rate; accent, speed and pitch depend on the clip's file."""
    rng: random.Random = rows.generator(clip.file)
    voice = f"{rng.choice(ACCENTS[clip.language])}+{clip.voice.removeprefix('espeak ')}"
    options = ["-s", str(rng.randint(130, 185)), "-p", str(rng.randint(30, 70))]
    command = ["espeak-ng", "--stdout", "-v", voice, *options, "--", clip.texts[clip.language]]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    with wave.open(io.BytesIO(output)) as file:
        rate = file.getframerate()
        # The length in the header of a stream is not true: take what is there.
        raw = np.frombuffer(output[44:], "<i2")
    return clips.real(raw), rate


def build(sources: Path, cache: Path, limit: int) -> None:
    """Say what is not there and write the rows; `limit` clips of each language if not 0."""
    if shutil.which("espeak-ng") is None:
        raise SystemExit("espeak-ng is not on the path: apt-get install espeak-ng")
    plan: list[Clip] = []
    for held_out, number in ((True, HELD_OUT), (False, TRAINED)):
        meanings = clips.sentences(cache, held_out)
        for language in LANGUAGES:
            plan += planned(meanings, language, held_out, min(number, limit or number))
    for clip in plan:
        path = cache / clip.split / clip.file
        if not path.exists():
            samples, rate = spoken(clip)
            clips.save(clips.trimmed(samples, rate), rate, path)
    clips.write(plan, cache, "espeak", 600)
