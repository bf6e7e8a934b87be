"""A recording of any length to captions: cut at pauses, one clip after another to the model.

In: a session, a source of sound. Out: `CaptionEvent`s while the captions are written. Cutting and
decoding the file run ahead of the model in a thread of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from matryo.engine import Cancel
from matryo.errors import InputError
from matryo.inputs.container import opened_container, seconds_of, sound_stream
from matryo.inputs.limits import DEFAULT_LIMITS, MediaLimits
from matryo.inputs.sniff import SOUNDS
from matryo.inputs.sound import RATE, sound_pieces
from matryo.inputs.source import Source
from matryo.inputs.voice import VoiceOptions, utterances
from matryo.pipeline import Pipeline
from matryo.sampling import GREEDY, Sampling
from matryo.session.events import Event
from matryo.speech.answer import Answer
from matryo.speech.captions import CaptionEvent
from matryo.speech.prompts import speech_prompt

MAX_TOKENS = 256  # of one caption: 30 s of fast speech are about 150
AHEAD = 2  # utterances that are cut before the model asks for them
SHORTEST_SAMPLES = 2048  # 0.13 s: the encoder needs 32 ms, and no word is shorter


class Generates(Protocol):
    """A session, as far as captions need one."""

    def generate(
        self,
        prompt: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int,
        sampling: Sampling | None,
        cancel: Cancel | None,
    ) -> Iterator[Event]: ...


def transcribe(
    session: Generates,
    source: object,
    *,
    language: str | None = None,
    to: str | None = None,
    voice: VoiceOptions | None = None,
    window: int = 0,
    max_tokens: int = MAX_TOKENS,
    sampling: Sampling = GREEDY,
    cancel: Cancel | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
) -> Iterator[CaptionEvent]:
    """Captions of a recording: partial ones while they are written, whole ones, and an end.

    language: that is spoken, a code such as es or an English name; the model finds out if None
    to: the language to translate into · voice: how the recording is cut · window: earlier captions
    that the model sees again with their sound, about 200 tokens each
    cancel: asked before every token; captions that were complete stay, the open one ends as it is
    Raises InputError at once for a language, window or source that cannot be used; while iterating
    for a file that is damaged.
    """
    if type(window) is not int or window < 0:
        raise InputError(f"window: expected a whole number from 0, got {window!r}")
    prompt = speech_prompt(language, to)
    opened = Source.of(source, limits=limits, allow_urls=allow_urls)
    pieces = sound_pieces(opened, limits=limits)

    def captions() -> Iterator[CaptionEvent]:
        history: list[dict[str, Any]] = []
        index, heard_s, is_cancelled = 0, 0.0, False
        with Pipeline() as line:
            for one in line.stage("cut", utterances(pieces, voice), capacity=AHEAD):
                is_cancelled = is_cancelled or (cancel is not None and cancel.is_set())
                if is_cancelled:
                    break
                if len(one.samples) < SHORTEST_SAMPLES:
                    continue
                heard_s = one.end_s
                messages = [*history, sound_message(prompt, one.samples)]
                answer = Answer(index, one.start_s, one.end_s, to=to, since=time.perf_counter())
                yield from answer.events(
                    session.generate(
                        messages, max_tokens=max_tokens, sampling=sampling, cancel=cancel
                    )
                )
                is_cancelled = answer.is_cancelled
                if answer.text.strip():
                    index += 1
                    reply = {"role": "assistant", "content": answer.text}
                    history = [*messages, reply][-2 * window :] if window else []
        yield CaptionEvent("done", index, None, heard_s, is_cancelled=is_cancelled)

    return captions()


def sound_message(prompt: str, sound: object) -> dict[str, Any]:
    """The user's turn: the instruction, then the sound, as in the developer guide."""
    items = [{"type": "text", "text": prompt}, {"type": "audio", "audio": sound}]
    return {"role": "user", "content": items}


def sound_seconds(source: object, *, limits: MediaLimits = DEFAULT_LIMITS) -> float | None:
    """How long a recording says it is, without decoding it; None if it does not say.

    Raises InputError if the source holds no sound.
    """
    opened = Source.of(source, limits=limits)
    if opened.array is not None:
        return len(opened.array) / RATE
    kind = opened.require(("sound", "container"), f"sound ({SOUNDS})")
    with opened_container(opened, kind, limits) as container:
        return seconds_of(container, sound_stream(container, limits))
