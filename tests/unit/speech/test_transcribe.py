"""A recording becomes captions in order; what the model is asked, and what stops it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from helpers.fake_session import FakeSession
from helpers.media import sound_file
from helpers.speech import RATE, conversation
from matryo.errors import InputError
from matryo.inputs.voice import VoiceOptions
from matryo.speech.captions import CaptionEvent
from matryo.speech.transcribe import sound_seconds, transcribe


def run(session: FakeSession, sound: object, **options: Any) -> list[CaptionEvent]:
    return list(transcribe(session, sound, **options))


def texts(events: list[CaptionEvent]) -> list[str]:
    return [event.caption.text for event in events if event.kind == "caption" and event.caption]


def test_captions_come_in_order_with_their_times() -> None:
    session = FakeSession(["Hello there.", "How are you?"])
    events = run(session, conversation(1.0, 2.0), language="en")
    assert [event.kind for event in events] == [
        "partial", "partial", "caption", "partial", "partial", "partial", "caption", "done",
    ]  # fmt: skip
    assert texts(events) == ["Hello there.", "How are you?"]
    assert [event.index for event in events] == [0, 0, 0, 1, 1, 1, 1, 2]
    first, second = (event.caption for event in events if event.kind == "caption")
    assert first is not None and second is not None
    assert first.start_s == pytest.approx(0.8, abs=0.05)
    assert first.end_s == pytest.approx(2.2, abs=0.05)
    assert second.end_s == pytest.approx(5.2, abs=0.05)
    partial = [event.caption.text for event in events if event.kind == "partial" and event.caption]
    assert partial == ["Hello", "Hello there.", "How", "How are", "How are you?"]
    assert not events[-1].is_cancelled


def test_the_model_is_asked_as_in_its_guide_with_the_sound_of_one_utterance() -> None:
    sound = conversation(1.0, 0.5)
    session = FakeSession(["a", "b"])
    run(session, sound, language="es", to="en")
    for messages in session.asked:
        (message,) = messages
        text, clip = message["content"]
        assert message["role"] == "user"
        assert text == {
            "type": "text",
            "text": "Transcribe the following speech segment in Spanish, "
            "then translate it into English:",
        }
        assert clip["type"] == "audio"
    heard = session.asked[0][0]["content"][1]["audio"]
    np.testing.assert_array_equal(heard, sound[12_800 : 12_800 + len(heard)])
    assert 1.3 < len(heard) / RATE < 1.5


def test_a_translation_is_told_from_the_words() -> None:
    session = FakeSession(["Hola.\nEnglish: Hello."])
    events = run(session, conversation(1.0), to="en")
    caption = events[-2].caption
    assert caption is not None
    assert (caption.text, caption.translation) == ("Hola.", "Hello.")


def test_a_window_shows_the_model_what_was_said_before() -> None:
    session = FakeSession(["one", "two", "three", "four"])
    run(session, conversation(0.5, 0.5, 0.5, 0.5), window=2)
    assert [len(messages) for messages in session.asked] == [1, 3, 5, 5]
    last = session.asked[-1]
    assert [message["content"] for message in last[1::2]] == ["two", "three"]
    assert last[2] == session.asked[2][-1]


def test_what_is_not_understood_gives_no_caption() -> None:
    events = run(FakeSession(["", "yes"]), conversation(0.5, 0.5))
    assert texts(events) == ["yes"]
    assert [event.index for event in events if event.kind == "caption"] == [0]


def test_silence_is_not_given_to_the_model() -> None:
    session = FakeSession([])
    events = run(session, np.zeros(3 * RATE, np.float32))
    assert [event.kind for event in events] == ["done"]
    assert session.asked == []


def test_cancelling_keeps_what_there_is() -> None:
    cancel = threading.Event()
    session = FakeSession(
        ["first caption", "stops in the middle", "never"],
        on_word=lambda word: cancel.set() if word == "in" else None,
    )
    events = run(session, conversation(0.5, 0.5, 0.5), cancel=cancel)
    assert texts(events) == ["first caption", "stops in"]
    assert (events[-1].kind, events[-1].is_cancelled, events[-1].index) == ("done", True, 2)
    assert len(session.asked) == 2


def test_cancelled_before_the_start() -> None:
    cancel = threading.Event()
    cancel.set()
    (end,) = run(FakeSession(["never"]), conversation(0.5), cancel=cancel)
    assert end.is_cancelled


def test_long_speech_is_cut_into_clips() -> None:
    session = FakeSession(["a", "b", "c"])
    events = run(session, conversation(5.0), voice=VoiceOptions(longest_s=2.0))
    assert texts(events) == ["a", "b", "c"]
    assert all(len(messages[0]["content"][1]["audio"]) <= 2 * RATE for messages in session.asked)


def test_closing_early_ends_the_thread() -> None:
    events = transcribe(FakeSession(["a b c", "d"]), conversation(0.5, 0.5))
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert [one.name for one in threading.enumerate() if one.name.startswith("matryo-")] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": -1}, "window"),
        ({"window": True}, "window"),
        ({"to": "xx"}, "language"),
        ({"language": "??"}, "language"),
    ],
)
def test_bad_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        transcribe(FakeSession([]), conversation(0.5), **options)


def test_an_unreadable_file_is_refused(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        transcribe(FakeSession([]), tmp_path / "no.wav")
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt ")
    with pytest.raises(InputError):
        run(FakeSession(["a"]), broken)


def test_the_length_is_what_the_header_says() -> None:
    assert sound_seconds(conversation(1.0)) == 3.0
    file = sound_file(conversation(1.0)[None], RATE, "wav", "pcm_s16le")
    assert sound_seconds(file) == pytest.approx(3.0)
    with pytest.raises(InputError, match="expected sound"):
        sound_seconds(b"no sound at all, whatever it is, for sure")
