"""The sound encoder: what it refuses, what it takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers.sound import TINY_CONFIG, audio_encoder, sound
from matryo.errors import InputError
from matryo.kernels import reference_audio
from matryo.model.audio import AudioEncoder


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    return audio_encoder()


def test_samples_and_their_mel_frames_give_the_same_tokens(
    encoder: AudioEncoder, rng: np.random.Generator
) -> None:
    samples = sound(rng, 20_000)
    mel, mask = encoder._filters.clip(samples)
    tokens = encoder.encode(samples)
    assert tokens.shape == (encoder.num_tokens(20_000), 48) == (8, 48)
    assert np.array_equal(tokens, encoder.encode(mel=mel, mask=mask))
    assert np.array_equal(tokens, encoder.encode(mel=mel))


@pytest.mark.parametrize(
    "changes",
    [
        {"reduction": 1},
        {"reduction": 3, "past_frames": 0},
        {"conv_kernel": 1, "past_frames": 30},
        {"num_mels": 7, "stem_channels": (3, 5), "num_heads": 1, "head_dim": 48},
        {"num_layers": 1, "clip": 0.5},
    ],
)
def test_other_shapes_give_the_tokens_of_the_numpy_twin(
    changes: dict[str, Any], rng: np.random.Generator
) -> None:
    config = replace(TINY_CONFIG, **changes)
    mel = rng.normal(-4, 3, (75, config.num_mels)).astype(np.float32)
    got = audio_encoder(config).encode(mel=mel)
    wanted = audio_encoder(config, ops=reference_audio).encode(mel=mel)
    assert got.shape == wanted.shape == (-(-75 // (4 * config.reduction)), 48)
    assert np.abs(got - wanted).max() < 2e-4


def test_sounds_do_not_disturb_each_other(encoder: AudioEncoder, rng: np.random.Generator) -> None:
    one, two = sound(rng, 9_000), sound(rng, 9_000)
    first, second = encoder.stream(), encoder.stream()
    tokens: tuple[list[Any], list[Any]] = ([], [])
    for start in range(0, 9_000, 1_000):
        tokens[0].append(first.push(one[start : start + 1_000]))
        tokens[1].append(second.push(two[start : start + 1_000]))
    tokens[0].append(first.finish())
    tokens[1].append(second.finish())
    assert np.array_equal(np.concatenate(tokens[0]), encoder.encode(one))
    assert np.array_equal(np.concatenate(tokens[1]), encoder.encode(two))


def test_what_is_no_sound_is_refused(encoder: AudioEncoder) -> None:
    good, mel = np.zeros(600, np.float32), np.zeros((20, 20), np.float32)
    bad: Any
    for bad in (good.astype(np.float64), good[:512], good[:0], good[None], [0.0], good + np.nan):
        with pytest.raises(InputError):
            encoder.encode(bad)
    for bad in (mel[:0], mel[:, :19], mel[0], mel.astype(np.float64), mel + np.nan, [0.0], None):
        with pytest.raises(InputError):
            encoder.encode(mel=bad)
    for bad in (np.ones(19, bool), np.ones(20, np.uint8), [True] * 20):
        with pytest.raises(InputError, match="mask is"):
            encoder.encode(mel=mel, mask=bad)
    with pytest.raises(InputError, match="either"):
        encoder.encode(good, mel=mel)
    with pytest.raises(InputError, match="either"):
        encoder.encode(good, mask=np.ones(2, bool))
    with pytest.raises(InputError, match="8000"):
        encoder.encode(good, sample_rate_hz=8_000)
    with pytest.raises(InputError, match="8000"):
        encoder.stream(8_000)


def test_a_stream_refuses_bad_samples_and_goes_on(
    encoder: AudioEncoder, rng: np.random.Generator
) -> None:
    samples, stream = sound(rng, 3_000), encoder.stream()
    tokens = [stream.push(samples[:1_000])]
    with pytest.raises(InputError, match="sample 1 "):
        stream.push(np.array([0.0, np.nan], np.float32))
    tokens += [stream.push(samples[1_000:]), stream.finish()]
    assert np.array_equal(np.concatenate(tokens), encoder.encode(samples))


def test_the_last_samples_may_come_with_the_end(
    encoder: AudioEncoder, rng: np.random.Generator
) -> None:
    samples = sound(rng, 9_000)
    stream, whole = encoder.stream(), encoder.stream()
    wanted = np.concatenate([stream.push(samples), stream.finish()])
    with pytest.raises(InputError):
        whole.finish(np.full(10, np.nan, np.float32))
    assert np.array_equal(whole.finish(samples), wanted)  # bad samples have ended nothing
    assert (whole.num_samples, whole.num_tokens) == (9_000, len(wanted))
    with pytest.raises(InputError, match="ended"):
        whole.finish(samples)


def test_a_stream_ends_once(encoder: AudioEncoder) -> None:
    stream = encoder.stream()
    assert stream.push(np.zeros(0, np.float32)).shape == (0, 48)
    assert stream.finish().shape == (0, 48)
    with pytest.raises(InputError, match="ended"):
        stream.push(np.zeros(10, np.float32))
    with pytest.raises(InputError, match="ended"):
        stream.finish()
