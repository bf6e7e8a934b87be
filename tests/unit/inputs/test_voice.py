"""Speech is found, padded, and cut at pauses; the pieces it came in play no part."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from matryo.errors import ConfigError
from matryo.inputs.voice import FRAME, Utterance, VoiceGate, VoiceOptions, levels, utterances

F32 = npt.NDArray[np.float32]
RATE = 16_000


def speech(seconds: float, loudness: float = 0.2) -> F32:
    """Syllables: a tone that swells five times a second and never falls silent for long."""
    time = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * 220 * time) * (0.55 + 0.45 * np.sin(2 * np.pi * 5 * time))
    return (loudness * tone).astype(np.float32)


def silence(seconds: float, rng: np.random.Generator, noise: float = 1e-4) -> F32:
    return (noise * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


def found(sound: F32, size: int = 1600, **options: Any) -> list[Utterance]:
    pieces = (sound[start : start + size] for start in range(0, len(sound), size))
    return list(utterances(pieces, VoiceOptions(**options)))


def test_utterances_are_where_the_speech_is_with_its_padding(rng: np.random.Generator) -> None:
    sound = np.concatenate(
        [silence(1, rng), speech(2), silence(1.5, rng), speech(1), silence(1, rng)]
    )
    first, second = found(sound, padding_s=0.2)
    assert first.start_s == pytest.approx(0.8, abs=0.021)
    assert first.end_s == pytest.approx(3.2, abs=0.06)
    assert second.start_s == pytest.approx(4.3, abs=0.021)
    assert second.end_s == pytest.approx(5.7, abs=0.06)
    for one in (first, second):
        np.testing.assert_array_equal(one.samples, sound[one.start :][: len(one.samples)])


@pytest.mark.parametrize("size", [1, 7, FRAME, 999, 10**6])
def test_the_cut_of_the_input_changes_nothing(rng: np.random.Generator, size: int) -> None:
    sound = np.concatenate([silence(0.3, rng), speech(0.7), silence(0.7, rng), speech(0.513)])
    expected, got = found(sound, 1600), found(sound, size)
    assert [one.start for one in got] == [one.start for one in expected]
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a.samples, b.samples)


def test_a_pause_shorter_than_asked_for_ends_nothing(rng: np.random.Generator) -> None:
    sound = np.concatenate([speech(1), silence(0.4, rng), speech(1), silence(1, rng)])
    assert len(found(sound, pause_s=0.6)) == 1
    assert len(found(sound, pause_s=0.3)) == 2


def test_the_threshold_to_end_is_below_the_one_to_begin(rng: np.random.Generator) -> None:
    """8 dB above the noise: too quiet to begin, loud enough to go on."""
    noise = 1e-2
    faint = np.float32(noise * 10 ** (8.5 / 20)) * rng.standard_normal(RATE).astype(np.float32)
    before = silence(12, rng, noise)
    alone = np.concatenate([before, faint, silence(1, rng, noise)])
    behind = np.concatenate([before, speech(1, 0.5), faint, silence(2, rng, noise)])
    assert [one for one in found(alone) if one.start_s > 11] == []
    (voice,) = (one for one in found(behind) if one.end_s > 12.5)
    assert voice.end_s == pytest.approx(14.2, abs=0.2)


def test_a_click_is_no_speech(rng: np.random.Generator) -> None:
    sound = silence(2, rng)
    sound[RATE : RATE + 300] = 0.9
    sound[RATE : RATE + 300 : 2] = -0.9
    assert found(sound) == []


def test_steady_noise_becomes_silence(rng: np.random.Generator) -> None:
    sound = np.concatenate([silence(30, rng, 3e-3), speech(1), silence(1, rng, 3e-3)])
    late = [one for one in found(sound) if one.end_s > 8]
    assert len(late) == 1
    assert late[0].start_s == pytest.approx(29.8, abs=0.1)


def test_no_utterance_is_longer_than_a_clip_and_none_of_it_is_lost(
    rng: np.random.Generator,
) -> None:
    sound = np.concatenate([silence(0.5, rng), speech(13), silence(1, rng)])
    parts = found(sound, longest_s=5.0)
    assert all(len(one.samples) <= 5 * RATE for one in parts)
    joined = np.concatenate([one.samples for one in parts])
    np.testing.assert_array_equal(joined, sound[parts[0].start :][: len(joined)])
    assert parts[-1].end_s >= 13.5


def test_a_long_utterance_ends_at_a_short_pause(rng: np.random.Generator) -> None:
    sound = np.concatenate([speech(9), silence(0.25, rng), speech(5), silence(1, rng)])
    first, *_ = found(sound, longest_s=10.0, pause_s=0.6)
    assert first.end_s == pytest.approx(9.2, abs=0.1)
    assert len(found(sound, longest_s=30.0, pause_s=0.6)) == 1


def test_silence_after_a_cut_is_no_utterance(rng: np.random.Generator) -> None:
    sound = np.concatenate([speech(2), silence(3, rng)])
    assert len(found(sound, longest_s=2.0, attack_s=0.0, padding_s=0.2)) == 1


def test_without_the_gate_everything_is_voice(rng: np.random.Generator) -> None:
    sound = silence(7.013, rng, 0.0)
    parts = found(sound, gate=False, longest_s=3.0)
    assert [len(one.samples) for one in parts] == [48000, 48000, 16208]
    assert [len(one.samples) for one in found(sound[:100], gate=False)] == [100]


def test_a_stream_says_that_somebody_speaks_before_they_stop(rng: np.random.Generator) -> None:
    gate = VoiceGate()
    assert gate.push(silence(1, rng)) == []
    (begun,) = gate.push(speech(1))
    assert gate.is_open
    assert begun.is_first and not begun.is_last
    assert begun.start + len(begun.samples) == 2 * RATE  # nothing is held back
    (ended,) = gate.push(silence(1, rng))
    assert ended.is_last and not ended.is_first and not gate.is_open
    assert gate.finish() == []


def test_no_sound_has_no_utterance() -> None:
    assert found(np.empty(0, np.float32)) == []
    assert found(np.zeros(RATE, np.float32)) == []


def test_a_constant_part_is_not_loudness() -> None:
    frames = np.full((2, FRAME), 0.5, np.float32)
    assert levels(frames).tolist() == [-120.0, -120.0]


@pytest.mark.parametrize(
    "options",
    [
        {"close_db": 11.0},
        {"close_db": 0.0},
        {"pause_s": 0.0},
        {"padding_s": -1.0},
        {"longest_s": 0.5},
        {"quiet_db": float("nan")},
    ],
)
def test_options_that_make_no_gate_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        VoiceOptions(**options)  # type: ignore[arg-type]
