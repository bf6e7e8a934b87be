"""Sound of every format becomes the same samples; what is no sound says why."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import wave
from itertools import islice
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.media import encoded, picture, sound_file, tone, video_file
from matryo.errors import InputError
from matryo.inputs.limits import MediaLimits
from matryo.inputs.sound import RATE, load_sound, sound_pieces
from matryo.inputs.source import Source

# container, codec, rate, the largest error relative to the sine (lossy codecs are what they are)
FORMATS = [
    ("wav", "pcm_s16le", 16000, 1e-3),
    ("wav", "pcm_s16le", 44100, 1e-3),
    ("wav", "pcm_f32le", 8000, 1e-3),
    ("wav", "pcm_u8", 22050, 3e-2),
    ("flac", "flac", 96000, 1e-3),
    ("mp3", "libmp3lame", 44100, 0.1),
    ("ipod", "aac", 48000, 0.15),
    ("mp4", "aac", 44100, 0.1),
    ("ogg", "libopus", 48000, 0.03),
    ("webm", "libopus", 48000, 0.03),
]


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    """(N,) or (N, channels) int16 as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        output.setsampwidth(2)
        output.setframerate(rate)
        output.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def float_wav(samples: np.ndarray, rate: int = RATE, channels: int = 1) -> bytes:
    """A WAV file of floats, with a header that may be nonsense."""
    body = samples.astype("<f4").tobytes()
    form = struct.pack(
        "<HHIIHH", 3, channels, rate, min(rate * 4 * channels, 2**32 - 1), 4 * channels, 32
    )
    chunks = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(body))
    return b"RIFF" + struct.pack("<I", len(chunks) + len(body)) + chunks + body


@pytest.mark.parametrize(("container", "codec", "rate", "error"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_gives_the_sine_that_was_written(
    container: str, codec: str, rate: int, error: float, channels: int
) -> None:
    data = sound_file(tone(1.0, rate, channels=channels), rate, container, codec)
    samples = load_sound(data)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert RATE <= len(samples) <= RATE + 500  # AAC fills its last frame
    expected = tone(1.0, channels=channels).mean(axis=0)
    inside = slice(1600, 14400)  # encoders distort the start
    difference = samples[inside] - expected[inside]
    assert np.sqrt(np.mean(difference**2) / np.mean(expected**2)) < error


def test_six_channels_are_averaged() -> None:
    samples = load_sound(sound_file(tone(0.5, channels=6), RATE, "wav", "pcm_f32le"))
    np.testing.assert_allclose(samples, tone(0.5, channels=6).mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("channels", [3, 8, 9, 12, 32])
def test_any_number_of_channels_is_averaged(channels: int) -> None:
    """More than 8 are special in FFmpeg: their pointers live elsewhere."""
    ramp = np.arange(1600)[:, None] * np.linspace(-9, 10, channels)[None, :]
    samples = load_sound(wav(np.rint(ramp).astype(np.int16)))
    np.testing.assert_allclose(samples, np.rint(ramp).mean(1) / 2**15, atol=1e-6)
    with pytest.raises(InputError, match="channels"):
        load_sound(wav(np.zeros((100, 33), np.int16)))


def test_the_sound_track_of_a_video() -> None:
    data = video_file([picture(48, 64)] * 10, sound=tone(1.0))
    assert abs(len(load_sound(data)) - RATE) <= 1024
    with pytest.raises(InputError, match="expected sound, the file holds none"):
        load_sound(video_file([picture(48, 64)] * 10))


def test_a_high_tone_does_not_fold_back() -> None:
    """12 kHz cannot be kept at 16,000 samples a second; it must go, not become 4 kHz."""
    samples = load_sound(tone(0.5, 48000, hertz=12000)[0], rate=48000)
    assert np.abs(samples[1000:-1000]).max() < 0.005


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 192000])
def test_arrays_are_resampled_and_mixed(rate: int) -> None:
    both = tone(0.5, rate, channels=2)
    expected = tone(0.5, channels=2).mean(axis=0)
    for array in (both.T, both.mean(axis=0), both.T.astype(np.float64)):
        samples = load_sound(array, rate=rate)
        assert abs(len(samples) - len(expected)) <= 2
        np.testing.assert_allclose(samples[500:7500], expected[500:7500], atol=2e-3)


def test_integers_are_taken_at_full_scale() -> None:
    np.testing.assert_array_equal(load_sound(np.array([-(2**15), 2**14], np.int16)), [-1, 0.5])
    np.testing.assert_array_equal(load_sound(np.array([-(2**31), 2**30], np.int32)), [-1, 0.5])


@pytest.mark.parametrize("seconds", [1 / RATE, 0.01, 0.16, 0.7, 100])
def test_pieces_joined_are_the_whole(seconds: float) -> None:
    short = 0.05 if seconds * RATE < 2 else 1.3
    data = sound_file(tone(short, 44100, channels=2), 44100, "flac", "flac")
    whole, pieces = load_sound(data), list(sound_pieces(data, seconds))
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    size = round(seconds * RATE)
    assert all(len(piece) == size for piece in pieces[:-1]) and 0 < len(pieces[-1]) <= size


def test_long_files_are_read_in_constant_memory() -> None:
    data = wav(np.zeros((44100 * 120, 2), np.int16), 44100)  # 7.7 MB as samples, 21 MB as a file
    tracemalloc.start()
    total = sum(len(piece) for piece in sound_pieces(data, 0.5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 120 * RATE and peak < 1 << 20


def test_a_piece_is_given_before_the_rest_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    num_bytes = 0

    class Counting(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal num_bytes
            data = super().read(size)
            num_bytes += len(data)
            return data

    data = wav(np.zeros(RATE * 600, np.int16))
    monkeypatch.setattr(Source, "open", lambda source: Counting(data))
    assert len(list(islice(sound_pieces(data, 0.1), 3))) == 3
    assert num_bytes < len(data) / 2


def test_a_longer_clip_than_allowed_is_refused_before_decoding() -> None:
    data = wav(np.zeros(RATE * 100, np.int16))
    with pytest.raises(InputError, match=r"at most 99 s of sound, got 100 s.*piece by piece"):
        load_sound(data, limits=MediaLimits(max_sound_seconds=99))
    with pytest.raises(InputError, match="at most 99 s"):
        list(sound_pieces(data, limits=MediaLimits(max_stream_seconds=99)))
    with pytest.raises(InputError, match="at most 1 s of sound, got more"):
        load_sound(np.zeros(RATE + 1, np.float32), limits=MediaLimits(max_sound_seconds=1))
    assert len(load_sound(np.zeros(RATE), limits=MediaLimits(max_sound_seconds=1))) == RATE


def test_a_length_that_the_file_hides_is_noticed_while_decoding() -> None:
    data = bytearray(sound_file(tone(20.0), RATE, "flac", "flac"))
    data[21] &= 0xF0  # STREAMINFO: the number of samples becomes 0, unknown
    data[22:26] = bytes(4)
    with pytest.raises(InputError, match="at most 5 s of sound"):
        load_sound(bytes(data), limits=MediaLimits(max_sound_seconds=5))


def nan_in(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array[-1] = value
    return array


SILENCE = np.zeros(RATE, np.float32)
HOSTILE: dict[str, Any] = {
    "nothing": b"",
    "no samples": wav(np.zeros(0, np.int16)),
    "an empty array": np.zeros(0, np.float32),
    "no channels": np.zeros((5, 0), np.float32),
    "many channels": np.zeros((5, 99), np.float32),
    "three axes": np.zeros((5, 1, 1), np.float32),
    "bytes of an array": np.zeros(5, np.uint8),
    "long integers": np.zeros(5, np.int64),
    "objects": np.zeros(5, object),
    "complex numbers": np.zeros(5, np.complex64),
    "NaN": nan_in(SILENCE, np.nan),
    "infinity": nan_in(SILENCE, -np.inf),
    "NaN in a file": float_wav(nan_in(SILENCE, np.nan)),
    "infinity in a file": float_wav(nan_in(SILENCE, np.inf)),
    "one sample a second": float_wav(np.zeros(100_000, np.float32), rate=1),
    "a rate of zero": float_wav(SILENCE, rate=0),
    "a rate of four thousand million": float_wav(SILENCE, rate=2**32 - 1),
    "no channels in a file": float_wav(SILENCE, channels=0),
    "a thousand channels": float_wav(SILENCE, channels=1000),
    "a text": b"just some words",
    "a picture": encoded(Image.fromarray(picture()), "PNG"),
    "a playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a session description": b"v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sound_is_refused_at_once(name: str) -> None:
    before = time.monotonic()
    with pytest.raises(InputError) as caught:
        load_sound(HOSTILE[name])
    assert time.monotonic() - before < 1
    assert str(caught.value).startswith(("bytes: ", "array: ", "expected 1 to 32 channels"))


@pytest.mark.parametrize("rate", [0, -1, 1, 10**9])
def test_rates_of_arrays_are_checked(rate: int) -> None:
    with pytest.raises(InputError, match="samples a second"):
        load_sound(np.zeros(10), rate=rate)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s16le"), ("flac", "flac"), ("mp4", "aac"), ("webm", "libopus")],
)
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_a_cut_off_file_is_refused(container: str, codec: str, share: float) -> None:
    data = sound_file(tone(4.0, 48000), 48000, container, codec)
    with pytest.raises(InputError, match="cut off"):
        load_sound(data[: int(share * len(data))])


def test_a_stream_of_damage_is_refused_and_a_little_is_left_out(rng: np.random.Generator) -> None:
    data = sound_file(tone(4.0, 44100), 44100, "flac", "flac")
    noise = bytearray(data)
    noise[9000:-9000] = rng.bytes(len(data) - 18000)
    with pytest.raises(InputError):
        load_sound(bytes(noise))
    mp3 = sound_file(tone(2.0, 44100), 44100, "mp3", "libmp3lame")
    tagged = mp3 + b"APETAGEX" + bytes(300) + b"TAG" + bytes(125)
    assert abs(len(load_sound(tagged)) - len(load_sound(mp3))) < 2500


@pytest.mark.parametrize("seconds", [0, -1, 1e-9])
def test_pieces_have_a_length(seconds: float) -> None:
    with pytest.raises(InputError, match="at least one sample"):
        sound_pieces(SILENCE, seconds)


@pytest.mark.parametrize(
    ("container", "codec", "rate"), [("ogg", "flac", 48000), ("adts", "aac", 44100)]
)
def test_a_file_that_changes_its_channels_and_rate_midway(
    container: str, codec: str, rate: int
) -> None:
    """Ogg streams may be chained, and frames of raw AAC are files of their own."""
    first = sound_file(tone(1.0, 48000, channels=1), 48000, container, codec)
    second = sound_file(tone(1.0, rate, channels=2), rate, container, codec)
    samples = load_sound(first + second)
    assert abs(len(samples) - 2 * RATE) < 1200  # AAC adds a frame at both ends
    inside = np.stack([samples[4000:12000], samples[-12000:-4000]])
    loudness = np.sqrt(2 * np.mean(inside**2, axis=1))
    np.testing.assert_allclose(loudness, [0.5, 0.375], rtol=0.05)  # the mean of 0.5 and 0.25
