"""Live captions: sound that is still arriving to text.

In: a model, a session, samples as they come. Out: `CaptionEvent`s. Sound is taken in and encoded in
threads of its own; when somebody pauses, or has spoken for a while, the soft tokens that are there
are read by the model. If it is slower than the speaker, partial captions are left out, never words.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from matryo.engine import Cancel
from matryo.errors import InputError
from matryo.inputs.sound import Samples
from matryo.inputs.voice import VoiceOptions
from matryo.media.parts import MediaPart
from matryo.pipeline import Pipeline
from matryo.sampling import GREEDY, Sampling
from matryo.speech.answer import Answer
from matryo.speech.captions import Caption, CaptionEvent
from matryo.speech.hearing import Heard, arrivals, hear
from matryo.speech.prompts import speech_prompt
from matryo.speech.transcribe import MAX_TOKENS, Generates, sound_message

if TYPE_CHECKING:
    from matryo.loading import Model

PARTIAL_S = 3.0  # of speech, between two partial captions
_WAITING = 4096  # pieces of sound, or steps of an utterance, that wait for a slow model: minutes


class Reads(Generates, Protocol):
    """A session, as far as live captions need one."""

    def prefill(
        self, prompt: Sequence[Mapping[str, Any]], *, cancel: Cancel | None = None
    ) -> None: ...


@dataclass(slots=True)
class _Interrupted:
    """Says stop to a partial caption: for the caller, or because a whole utterance is there."""

    cancel: Cancel | None
    whole: list[int]
    number: int

    def is_set(self) -> bool:
        if self.cancel is not None and self.cancel.is_set():
            return True
        return bool(self.whole) and self.whole[-1] >= self.number


def listen(
    model: Model,
    session: Reads,
    pieces: Iterable[Samples],
    *,
    language: str | None = None,
    to: str | None = None,
    voice: VoiceOptions | None = None,
    partial_s: float = PARTIAL_S,
    fill: bool = True,
    max_tokens: int = MAX_TOKENS,
    sampling: Sampling = GREEDY,
    cancel: Cancel | None = None,
) -> Iterator[CaptionEvent]:
    """Captions of sound while it is spoken.

    pieces: of a microphone, or of a recording at its own pace (`hearing.paced`); they are taken
    from a thread · language, to, voice: as in `transcribe` · partial_s: seconds of speech after
    which an open utterance is read, 0 for never · fill: give every utterance as many soft tokens as
    a clip has, as in training; False gives it its own alone, and reads them while they come: the
    caption is there sooner, of a prompt that training never showed
    cancel: asked before every token and piece; what is known of an open utterance becomes a caption
    Raises InputError at once for a language or number that cannot be used, or if the model has no
    encoder of sound; while iterating whatever `pieces` raise.
    """
    if not 0 <= partial_s < float("inf"):
        raise InputError(f"partial_s: expected seconds from 0, got {partial_s}")
    prompt = speech_prompt(language, to)
    encoder = model.audio
    library = model.library
    embed = library.towers.embedder("audio").soft
    tokens = library.towers.require("audio").ids.count
    stream_key = secrets.token_hex(16)
    whole: list[int] = []  # numbers of utterances that have ended, known before they are read

    def steps(arrived: Iterable[Any]) -> Iterator[Heard]:
        for step in hear(arrived, encoder.stream, embed, voice):
            if step.is_whole:
                whole.append(step.number)
            yield step

    def message(step: Heard) -> dict[str, Any]:
        values = step.embeddings[:tokens]
        growing = (f"{stream_key} {step.number}", len(values))
        if fill:
            values = library.encoder.filled(values)
        digest = hashlib.sha256(values.tobytes()).hexdigest()
        part = MediaPart("audio", digest, len(values), None, growing=growing)
        library.keep(part, values)
        return sound_message(prompt, part)

    def stopped() -> bool:
        return cancel is not None and cancel.is_set()

    def captions() -> Iterator[CaptionEvent]:
        index, heard_s, read_s, number = 0, 0.0, 0.0, -1
        known: Caption | None = None
        with Pipeline() as line:
            arrived = line.stage("capture", arrivals(pieces, stopped), capacity=_WAITING)
            heard = line.stage("hear", steps(arrived), capacity=_WAITING)
            for step in heard:
                if stopped():
                    break
                heard_s = step.end_s
                if step.number != number:
                    number, read_s, known = step.number, step.start_s, None
                is_late = heard.waiting > 0 or arrived.waiting > 1
                is_due = partial_s > 0 and step.end_s - read_s >= partial_s and not is_late
                if not (step.is_whole or is_due):
                    if not (fill or is_late):
                        session.prefill([message(step)], cancel=cancel)
                    continue
                read_s = step.end_s
                answer = Answer(index, step.start_s, step.end_s, to=to, since=step.spoken_at)
                stop = cancel if step.is_whole else _Interrupted(cancel, whole, number)
                events = session.generate(
                    [message(step)],
                    max_tokens=max_tokens, sampling=sampling, cancel=stop,
                )  # fmt: skip
                for event in answer.events(events, is_whole=step.is_whole):
                    known = event.caption
                    if event.kind == "caption":
                        index, known = index + 1, None
                    yield event
            if stopped() and known is not None:
                yield CaptionEvent("caption", index, known, heard_s)
                index += 1
        yield CaptionEvent("done", index, None, heard_s, is_cancelled=stopped())

    return captions()
