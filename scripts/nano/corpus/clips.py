"""Clips of speech and the rows that ask about them.

In: samples, what they say in five languages, whose voice it is. Out: Opus files of 16 kHz, one
channel, 24 kbit/s, and rows to transcribe and to translate them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scripts.nano.corpus import rows
from scripts.nano.corpus.languages import LANGUAGES, NAMES
from scripts.nano.corpus.phrases import Texts

RATE = 16_000
BITS = 24_000  # a second
LETTERS = range(8, 56)  # of a sentence that is spoken in one to four seconds

Samples = npt.NDArray[np.float32]  # -1..1


@dataclass(frozen=True)
class Clip:
    """Something to say: `texts` in `language` by `voice`, into `file` beside the rows."""

    held_out: bool
    file: str
    language: str
    voice: str
    texts: Texts

    @property
    def split(self) -> str:
        """The directory of its split."""
        return "heldout" if self.held_out else "train"


def sentences(cache: Path, held_out: bool) -> list[Texts]:
    """The grammar's meanings of one split."""
    listed = rows.read(cache / "sentences.jsonl")
    return [row["texts"] for row in listed if row["held_out"] == held_out]


def fitting(meanings: list[Texts], language: str, key: str, number: int) -> list[Texts]:
    """So many of the meanings that are short enough in a language, in an order of their own."""
    short = [texts for texts in meanings if len(texts[language]) in LETTERS]
    rows.generator(key).shuffle(short)
    return [short[at % len(short)] for at in range(number)]


def file_name(kind: str, language: str, voice: str, words: str) -> str:
    """Where a clip lies, beside the rows."""
    return f"speech/{kind}-{language}-{rows.number_of(f'{voice} {words}'):016x}.ogg"


def real(samples: npt.NDArray[np.int16]) -> Samples:
    """Samples of 16 bits as numbers between -1 and 1."""
    return samples.astype(np.float32) / np.float32(32768)


def trimmed(samples: Samples, rate: int, keep: float = 0.1) -> Samples:
    """The samples without the silence around them but `keep` seconds, at a peak of 0.7."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < 1e-4:
        return samples
    loud = np.flatnonzero(np.abs(samples) > 0.02 * peak)
    start = max(int(loud[0] - keep * rate), 0)
    return (samples[start : int(loud[-1] + keep * rate)] * (0.7 / peak)).astype(np.float32)


def save(samples: Samples, rate: int, path: Path) -> None:
    """Write samples of any rate as an Opus file, whole or not at all."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    whole = (np.clip(samples, -1, 1) * 32767).astype(np.int16)[None]
    with av.open(str(unfinished), "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=RATE, layout="mono", bit_rate=BITS)
        resampler = av.AudioResampler("s16", "mono", RATE)
        frame = av.AudioFrame.from_ndarray(whole, "s16", "mono")
        frame.rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    os.replace(unfinished, path)


def seconds(path: Path) -> float:
    """How long a clip is."""
    import av

    with av.open(str(path)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
        return round(samples / container.streams.audio[0].rate, 2)


def transcription(clip: Clip, length: float) -> rows.Row:
    """A request to write down what is said."""
    said = clip.texts[clip.language]
    prompt = [rows.audio(clip.file), rows.text("Transcribe.")]
    return rows.chat(
        "transcribe", clip.language, prompt, said, said=said, voice=clip.voice, seconds=length
    )


def translation(clip: Clip, target: str, length: float) -> rows.Row:
    """A request to say it in another language."""
    prompt = [rows.audio(clip.file), rows.text(f"Translate to {NAMES[target]}.")]
    return rows.chat(
        "speech_translate", target, prompt, clip.texts[target], source=clip.language,
        said=clip.texts[clip.language], voice=clip.voice, seconds=length,
    )  # fmt: skip


def questions(clips: list[Clip], cache: Path) -> Iterator[rows.Row]:
    """One transcription and one translation of each clip that was made."""
    for clip in clips:
        path = cache / clip.split / clip.file
        if not path.exists():
            continue
        length = seconds(path)
        yield transcription(clip, length)
        others = [x for x in LANGUAGES if x != clip.language and x in clip.texts]
        if others:
            yield translation(clip, rows.generator(clip.file).choice(others), length)


def write(clips: list[Clip], cache: Path, name: str, limit: int) -> None:
    """Write `train/<name>.jsonl` and, for each task, `heldout/<task>_<name>.jsonl`."""
    trained = [clip for clip in clips if not clip.held_out]
    if trained:
        rows.write(cache / "train" / f"{name}.jsonl", questions(trained, cache), order=name)
    secret = list(questions([clip for clip in clips if clip.held_out], cache))
    for task in ("transcribe", "speech_translate"):
        listed = [row for row in secret if row["task"] == task]
        if listed:
            rows.write(cache / "heldout" / f"{task}_{name}.jsonl", listed, name, limit)
