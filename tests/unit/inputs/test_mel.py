"""Log-mel frames: what is refused, and that a stream gives the bits of the whole clip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.sound import sound
from matryo.errors import InputError
from matryo.inputs.mel import (
    FRAME,
    MelFilters,
    MelStream,
    check_samples,
    num_frames,
    padded_length,
)


def test_silence_is_the_floor() -> None:
    mel, mask = MelFilters().clip(np.zeros(1_000, np.float32))
    assert mel.shape == (4, 128) and mask.all()
    assert np.allclose(mel, np.log(1e-5))


def test_a_tone_stands_in_its_bin() -> None:
    """1 kHz lies 52 % of the way from 125 to 7,600 Hz on the mel scale."""
    seconds = np.arange(16_000) / 16_000
    mel, _ = MelFilters().clip(np.sin(2 * np.pi * 1_000 * seconds).astype(np.float32))
    lowest, tone, highest = 2595 * np.log10(1 + np.array([125, 1_000, 7_600]) / 700)
    assert (np.abs(mel.argmax(axis=1) - (129 * (tone - lowest) / (highest - lowest) - 1)) < 1).all()


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (512, 0), (513, 1), (640, 1), (16_000, 97), (480_000, 2_997)]
)
def test_how_many_frames(samples: int, frames: int) -> None:
    assert num_frames(padded_length(samples)) == frames


@pytest.mark.parametrize("pieces", [[1], [159, 160, 161], [7_000], [1, 2_000, 513]])
def test_a_stream_gives_the_bits_of_the_clip(pieces: list[int], rng: np.random.Generator) -> None:
    filters, clip = MelFilters(), sound(rng, 7_321)
    stream, first, index, blocks = MelStream(filters), 0, 0, []
    while first < len(clip):
        size = pieces[index % len(pieces)]
        blocks += list(stream.push(clip[first : first + size]))
        first, index = first + size, index + 1
    blocks += list(stream.finish())
    assert np.array_equal(np.concatenate(blocks), filters.clip(clip)[0])


def test_long_clips_are_cut_into_blocks_without_a_seam(rng: np.random.Generator) -> None:
    filters, clip = MelFilters(), sound(rng, 400_000)
    whole, _ = filters.clip(clip)
    for first in (1_020, 2_040):  # around the blocks of 1,024 frames
        assert np.array_equal(filters.frames(clip[first * 160 :])[:8], whole[first : first + 8])


def test_the_mask_ends_with_the_sound(rng: np.random.Generator) -> None:
    mel, mask = MelFilters().clip(sound(rng, 1_000), 3_000)
    assert len(mel) == len(mask) == num_frames(padded_length(3_000))
    assert mask.sum() == 7  # frames that begin at 0, 160, ... 960


def nan_at(index: int) -> np.ndarray[Any, Any]:
    samples = np.zeros(1_000, np.float32)
    samples[index] = np.nan
    return samples


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([0.0] * 600, "list"),
        (np.zeros(600), "float64"),
        (np.zeros(600, np.int16), "int16"),
        (np.zeros((2, 600), np.float32), r"shape \(2, 600\)"),
        (nan_at(7), "sample 7"),
        (np.full(600, np.inf, np.float32), "sample 0"),
        (np.full(600, 1e20, np.float32), "sample 0"),
    ],
)
def test_what_is_no_sound_is_refused(samples: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_samples(samples)
    with pytest.raises(InputError, match=message):
        MelFilters().clip(samples)


def test_another_rate_and_clips_that_are_too_short_are_refused() -> None:
    with pytest.raises(InputError, match="44100"):
        check_samples(np.zeros(600, np.float32), 44_100)
    for size in (0, 1, FRAME - 1):
        with pytest.raises(InputError, match=f"{size} samples"):
            MelFilters().clip(np.zeros(size, np.float32))
    with pytest.raises(InputError, match="0 samples"):
        MelFilters().clip(np.zeros(0, np.float32), 5_000)
    with pytest.raises(InputError, match="longest"):
        MelFilters().clip(np.zeros(600, np.float32), 599)


def test_strided_samples_are_taken() -> None:
    stereo = np.zeros((700, 2), np.float32)
    assert len(MelFilters().clip(stereo[:, 0])[0]) == 2
