"""Speech is encoded while it arrives: the same tokens as afterwards, in time, with its times."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from helpers.sound import TINY_CONFIG, audio_encoder
from helpers.speech import RATE, conversation
from matryo.inputs.voice import VoiceOptions, utterances
from matryo.speech.hearing import F32, Arrived, Heard, arrivals, hear, paced

ENCODER = audio_encoder(TINY_CONFIG)


def embed(features: F32) -> F32:
    return 2 * features


def pieces(sound: F32, size: int = 2560) -> list[F32]:
    return [sound[start : start + size] for start in range(0, len(sound), size)]


def heard(sound: F32, size: int = 2560, voice: VoiceOptions | None = None) -> list[Heard]:
    arrived = (
        Arrived(piece, (number + 1) * size / RATE)
        for number, piece in enumerate(pieces(sound, size))
    )
    return list(hear(arrived, ENCODER.stream, embed, voice))


@pytest.mark.parametrize("size", [160, 2560, 100_000])
def test_the_stream_gives_the_tokens_of_the_whole_utterances(size: int) -> None:
    sound = conversation(1.3, 0.6)
    expected = [embed(ENCODER.encode(one.samples)) for one in utterances([sound])]
    whole = [step for step in heard(sound, size) if step.is_whole]
    assert len(whole) == len(expected) == 2
    for step, want in zip(whole, expected, strict=True):
        np.testing.assert_array_equal(step.embeddings, want)


def test_tokens_are_there_before_the_utterance_ends() -> None:
    steps = [step for step in heard(conversation(1.6)) if step.number == 0]
    counts = [len(step.embeddings) for step in steps]
    assert counts == sorted(counts)
    assert counts[0] <= 2 < counts[-2] < counts[-1]
    for step in steps[:-1]:
        np.testing.assert_array_equal(step.embeddings, steps[-1].embeddings[: len(step.embeddings)])


def test_times_are_those_of_the_last_sample_not_of_the_pause_behind_it() -> None:
    first, second = (step for step in heard(conversation(1.0, 1.0)) if step.is_whole)
    assert first.start_s == pytest.approx(0.8, abs=0.05)
    assert first.end_s == pytest.approx(2.2, abs=0.05)
    assert first.spoken_at == pytest.approx(first.end_s, abs=0.17)
    assert second.number == 1
    assert second.spoken_at == pytest.approx(second.end_s, abs=0.17)


def test_silence_is_not_heard() -> None:
    assert heard(np.zeros(3 * RATE, np.float32)) == []


def test_a_recording_is_played_at_its_own_pace() -> None:
    slept: list[float] = []
    clock = [100.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    played = paced([np.zeros(RATE, np.float32)] * 3, now=lambda: clock[0], sleep=sleep)
    next(played)
    clock[0] += 1.5  # the listener was busy: the next piece is late already, the third is not
    next(played)
    next(played)
    assert slept == pytest.approx([1.0, 0.5])


def test_stopping_ends_the_source() -> None:
    closed = []

    def endless() -> Iterator[F32]:
        try:
            while True:
                yield np.zeros(160, np.float32)
        finally:
            closed.append(True)

    taken = arrivals(endless(), lambda: len(closed) == 0 and len(seen) >= 3)
    seen: list[Arrived] = []
    for one in taken:
        seen.append(one)
    assert (len(seen), closed) == (3, [True])
