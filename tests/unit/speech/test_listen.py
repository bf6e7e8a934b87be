"""Live captions of a tiny model: partial, whole, late, cancelled."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import matryo
from helpers.fake_session import FakeSession
from helpers.speech import RATE, conversation
from matryo.errors import InputError
from matryo.inputs.voice import VoiceOptions, utterances
from matryo.media.parts import MediaPart
from matryo.media.prompt import Placed, same_until
from matryo.speech.captions import CaptionEvent
from matryo.speech.listen import listen
from matryo.speech.transcribe import sound_message, transcribe

F32 = npt.NDArray[np.float32]
VOICE = VoiceOptions(longest_s=1.9)


@pytest.fixture(scope="module")
def model(seeing_checkpoint: Path) -> Iterator[matryo.Model]:
    with matryo.load(seeing_checkpoint, weights="f32") as model:
        yield model


def pieces(sound: F32) -> list[F32]:
    return [sound[start : start + 2560] for start in range(0, len(sound), 2560)]


class Slowly:
    """Pieces that each wait until the listener has seen what the ones before led to."""

    def __init__(self, sound: F32) -> None:
        self._pieces = pieces(sound)
        self.allowed = threading.Semaphore(0)

    def __iter__(self) -> Iterator[F32]:
        for piece in self._pieces:
            assert self.allowed.acquire(timeout=30)
            yield piece


def texts(events: list[CaptionEvent]) -> list[str]:
    return [event.caption.text for event in events if event.kind == "caption" and event.caption]


def test_captions_are_those_of_the_recording(model: matryo.Model) -> None:
    sound = conversation(1.1, 0.7)
    live = list(
        listen(model, model.session(), pieces(sound), voice=VOICE, partial_s=0, max_tokens=6)
    )
    later = list(transcribe(model.session(), sound, voice=VOICE, max_tokens=6))
    assert texts(live) == texts(later) and len(texts(live)) == 2
    assert [event.caption for event in live if event.kind == "caption"] == [
        event.caption for event in later if event.kind == "caption"
    ]
    assert live[-1].kind == "done" and not live[-1].is_cancelled
    assert all(event.lag_s > 0 for event in live[:-1])


def test_what_is_spoken_is_read_before_it_ends(model: matryo.Model) -> None:
    """Sound that comes no faster than it is read has partial captions of growing length."""
    session = FakeSession([f"caption {number}" for number in range(40)])
    events = paced_by(session, conversation(1.6), model, partial_s=0.3)
    partial = [event for event in events if event.kind == "partial" and event.caption]
    ends = sorted({event.caption.end_s for event in partial if event.caption})
    assert len(ends) >= 3
    assert all(b - a >= 0.25 for a, b in pairwise(ends[:-1]))
    assert len(texts(events)) == 1


def test_a_slow_model_leaves_partial_captions_out_and_no_words(model: matryo.Model) -> None:
    """All sound is there at once: only whole utterances are read."""
    ready = threading.Event()

    def at_once() -> Iterator[F32]:
        yield from pieces(conversation(1.0, 1.0, 1.0))
        ready.set()

    class Slow(FakeSession):
        def generate(self, *args: Any, **options: Any) -> Any:
            assert ready.wait(30)
            return super().generate(*args, **options)

    session = Slow(["one", "two", "three", "four"])
    events = list(listen(model, session, at_once(), voice=VOICE, partial_s=0.2))
    assert texts(events) == ["one", "two", "three"]
    assert len(session.asked) == 3


def paced_by(session: Any, sound: F32, model: matryo.Model, **options: Any) -> list[CaptionEvent]:
    """Sound that comes slowly enough for every step of it to be read."""
    slow, done = Slowly(sound), threading.Event()

    def feed() -> None:
        while not done.wait(0.02):
            slow.allowed.release()

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        return list(listen(model, session, slow, voice=VOICE, **options))
    finally:
        done.set()
        feeder.join()


def test_without_filling_tokens_are_read_while_they_come(model: matryo.Model) -> None:
    session = FakeSession(["one"])
    paced_by(session, conversation(1.2), model, partial_s=0, fill=False)
    counts = [prompt[0]["content"][1]["audio"].count for prompt in session.prefilled]
    assert len(counts) >= 3 and counts == sorted(counts)
    final = session.asked[0][0]["content"][1]["audio"]
    assert final.count > counts[-1] and final.growing[1] == final.count
    filled = FakeSession(["one"])
    paced_by(filled, conversation(1.2), model, partial_s=0)
    assert filled.prefilled == []
    assert filled.asked[0][0]["content"][1]["audio"].count == 12


def test_what_was_read_is_not_read_again_and_changes_no_answer(model: matryo.Model) -> None:
    session, sound = model.session(), conversation(1.2)
    events = paced_by(session, sound, model, partial_s=0, fill=False, max_tokens=6)
    (caption,) = (event for event in events if event.kind == "caption")
    assert caption.stats is not None
    computed = caption.stats.prompt_tokens - caption.stats.cached_tokens
    (one,) = utterances([sound], VOICE)
    streamed = matryo.SoundTokens(model.audio.encode(one.samples))
    assert computed < len(streamed.values) + 5  # the last tokens, and what stands behind them
    message = sound_message("Transcribe the following speech segment:", streamed)
    fresh = model.session().generate([message], max_tokens=6, sampling=matryo.GREEDY)
    text = "".join(event.text for event in fresh)
    assert caption.caption is not None and caption.caption.text == text.strip()


def test_two_parts_of_one_sound_share_what_both_hold() -> None:
    def placed(digest: str, key: str | None, rows: int, start: int = 7) -> Placed:
        growing = None if key is None else (key, rows)
        return Placed(start, MediaPart("audio", digest, 12, None, growing=growing), 12)

    early, late = placed("a", "talk", 4), placed("b", "talk", 9)
    assert same_until([early], [late]) == same_until([late], [early]) == 7 + 4
    assert same_until([early], [placed("b", "other", 9)]) == 7
    assert same_until([early], [placed("b", None, 0)]) == 7
    assert same_until([early], [placed("b", "talk", 9, start=5)]) == 5
    assert same_until([early], [placed("a", None, 0)]) is None


def test_a_partial_caption_leaves_its_tokens_to_the_next(model: matryo.Model) -> None:
    session = model.session()
    events = paced_by(session, conversation(1.4), model, partial_s=0.6, max_tokens=3)
    caption = events[-2]
    assert caption.kind == "caption" and caption.stats is not None
    empty = len(model.tokenizer.encode("Transcribe the following speech segment:"))
    assert caption.stats.cached_tokens > empty + 6  # more than the words before the sound
    once = list(
        listen(model, model.session(), pieces(conversation(1.4)), voice=VOICE, partial_s=0,
               max_tokens=3)
    )  # fmt: skip
    assert texts(events) == texts(once)


def test_the_prompt_and_the_clip_are_those_of_transcription(model: matryo.Model) -> None:
    session = FakeSession(["Hola.\nEnglish: Hello."])
    events = list(
        listen(
            model, session, pieces(conversation(1.0)),
            language="es", to="en", voice=VOICE, partial_s=0,
        )
    )  # fmt: skip
    ((message,),) = session.asked
    text, clip = message["content"]
    assert text["text"].startswith("Transcribe the following speech segment in Spanish, then")
    assert (clip["type"], clip["audio"].tower, clip["audio"].count) == ("audio", "audio", 12)
    assert events[-2].caption is not None
    assert events[-2].caption.translation == "Hello."


def test_cancelling_keeps_what_is_known(model: matryo.Model) -> None:
    cancel = threading.Event()

    def endless() -> Iterator[F32]:
        yield from pieces(conversation(0.8))
        while True:
            yield np.zeros(2560, np.float32)

    session = FakeSession(
        ["said before the key"], on_word=lambda word: cancel.set() if word == "the" else None
    )
    events = list(listen(model, session, endless(), voice=VOICE, partial_s=0, cancel=cancel))
    assert texts(events) == ["said before the"]
    assert events[-1].is_cancelled
    assert [one.name for one in threading.enumerate() if one.name.startswith("matryo-")] == []


def test_an_error_of_the_source_reaches_the_reader(model: matryo.Model) -> None:
    def broken() -> Iterator[F32]:
        yield np.zeros(RATE, np.float32)
        raise InputError("microphone: it was unplugged")

    with pytest.raises(InputError, match="unplugged"):
        list(listen(model, FakeSession([]), broken()))


def test_a_model_without_ears_says_so(tiny_checkpoint: Path) -> None:
    with (
        matryo.load(tiny_checkpoint) as text_only,
        pytest.raises(InputError, match="no encoder of sound"),
    ):
        listen(text_only, FakeSession([]), [])


@pytest.mark.parametrize("partial_s", [-1.0, float("nan"), float("inf")])
def test_bad_options_are_refused(model: matryo.Model, partial_s: float) -> None:
    with pytest.raises(InputError, match="partial_s"):
        listen(model, FakeSession([]), [], partial_s=partial_s)
