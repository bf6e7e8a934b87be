"""However a sound is cut, its tokens have the bits of the whole; an hour costs no more memory than
a second.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.sound import F32, TINY_CONFIG, audio_encoder, sound
from matryo.model.audio import AudioEncoder

ENCODERS = {kind: audio_encoder(kind=kind) for kind in ("f32", "bf16", "q8")}
SOUND = sound(np.random.default_rng(11), 30_000)


def streamed(encoder: AudioEncoder, samples: F32, sizes: list[int]) -> F32:
    """Tokens of the samples in pieces of `sizes`, again and again."""
    stream, tokens, first, index = encoder.stream(), [], 0, 0
    while first < len(samples):
        size = sizes[index % len(sizes)]
        tokens.append(stream.push(samples[first : first + size]))
        first, index = first + size, index + 1
    tokens.append(stream.finish())
    assert stream.num_samples == len(samples)
    assert stream.num_tokens == sum(map(len, tokens)) == encoder.num_tokens(len(samples))
    return np.concatenate(tokens)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(513, len(SOUND)),
    sizes=st.lists(st.integers(1, 9_000), min_size=1, max_size=8),
    kind=st.sampled_from(sorted(ENCODERS)),
)
def test_pieces_give_the_bits_of_the_whole(length: int, sizes: list[int], kind: str) -> None:
    if sum(sizes) < 40 * len(sizes):
        sizes.append(3_000)  # small pieces everywhere: the next test
    encoder, samples = ENCODERS[kind], SOUND[:length]
    assert np.array_equal(streamed(encoder, samples, sizes), encoder.encode(samples))


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_single_samples_give_the_bits_of_the_whole(kind: str) -> None:
    encoder, samples = ENCODERS[kind], SOUND[:7_777]
    assert np.array_equal(streamed(encoder, samples, [1]), encoder.encode(samples))


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 300), data=st.data())
def test_mel_frames_of_a_sound_give_its_bits(frames: int, data: st.DataObject) -> None:
    """The mask only hides frames: valid ones see nothing of those behind them."""
    encoder, rng = ENCODERS["f32"], np.random.default_rng(frames)
    mel = rng.normal(-4, 3, (frames, TINY_CONFIG.num_mels)).astype(np.float32)
    more = data.draw(st.integers(0, 40))
    padded = np.concatenate([mel, rng.normal(size=(more, TINY_CONFIG.num_mels))])
    mask = np.arange(len(padded)) < frames
    got = encoder.encode(mel=padded.astype(np.float32), mask=mask)
    wanted = encoder.encode(mel=padded.astype(np.float32))
    valid = encoder.valid_tokens(mask)
    assert np.array_equal(got[valid], wanted[valid]) and (got[~valid] == 0).all()


def test_a_token_comes_as_soon_as_its_frames_are_there() -> None:
    """Token j needs mel frames up to 16 j + 6, the last of which ends 1,473 samples after it
    began.
    """
    stream = ENCODERS["f32"].stream()
    came = [len(stream.push(SOUND[i : i + 1])) for i in range(3 * 2_560 + 1_473)]
    assert np.flatnonzero(came).tolist() == [2_560 * j + 6 * 160 + 513 - 1 for j in range(4)]


def test_an_hour_takes_no_more_memory_than_a_second() -> None:
    encoder = audio_encoder()
    forward, rng = encoder._forward(), np.random.default_rng(3)
    minute = rng.normal(-4, 3, (6_000, 20)).astype(np.float32)
    sizes, tokens = set(), 0
    for _ in range(60):
        tokens += len(forward.push(minute))
        sizes.add(forward.num_bytes())
    assert tokens + len(forward.finish()) == 60 * 6_000 // 16
    assert max(sizes) < 32_000
