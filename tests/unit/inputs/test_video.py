"""Frames of a video: which ones, when, which way up, and what happens without any."""

from __future__ import annotations

import struct
import time
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from helpers.media import encoded, picture, sound_file, tone, video_file
from matryo.errors import InputError
from matryo.inputs.image import load_image
from matryo.inputs.limits import MediaLimits
from matryo.inputs.sound import load_sound
from matryo.inputs.video import frame_budget, frame_times, video_frames, video_info

GREYS = [np.full((48, 64, 3), 8 * n, np.uint8) for n in range(30)]  # 3 s at 10 frames a second
DURATION = bytes.fromhex("448988")  # of Matroska: the element, then its 8 bytes
FORMATS = [
    ("mp4", "libx264"),
    ("mp4", "mpeg4"),
    ("webm", "libvpx-vp9"),
    ("matroska", "libx264"),
    ("avi", "mpeg4"),
]


@pytest.fixture(scope="module")
def greys() -> bytes:
    return video_file(GREYS)


def numbers(data: bytes, rate: float = 1.0, **options: object) -> list[int]:
    """Which of GREYS the frames are, told by their colour; each at its own time."""
    frames = list(video_frames(data, rate, None, **options))  # type: ignore[arg-type]
    found = [round(float(frame.rgb.mean()) / 8) for frame in frames]
    np.testing.assert_allclose([frame.time for frame in frames], np.array(found) / 10, atol=1e-3)
    return found


@pytest.mark.parametrize(("container", "codec"), FORMATS)
def test_every_format_gives_all_its_frames(container: str, codec: str) -> None:
    data = video_file(GREYS, 10, container, codec)
    assert numbers(data, 10) == list(range(30))
    assert numbers(data, 1000) == list(range(30))
    info = video_info(data)
    assert (info.width, info.height, info.rate, info.has_sound) == (64, 48, 10, False)
    assert info.seconds == pytest.approx(3, abs=0.15)


def test_a_rate_takes_the_frame_that_is_on_screen(greys: bytes) -> None:
    assert numbers(greys, 1) == [0, 10, 20]
    assert numbers(greys, 2.5) == [0, 4, 8, 12, 16, 20, 24, 28]
    assert numbers(greys, 3) == [0, 3, 6, 10, 13, 16, 20, 23, 26]
    assert numbers(greys, 0.01) == [0]


def test_times_take_the_frame_that_is_on_screen(greys: bytes) -> None:
    assert numbers(greys, times=[0.0, 0.05, 0.33, 1.0, 2.99]) == [0, 3, 10, 29]
    assert numbers(greys, times=[7.0]) == []
    assert numbers(greys, times=frame_times(3, 3)) == [5, 15, 25]


def test_a_standing_picture_is_given_once() -> None:
    data = video_file(GREYS[:4], times=[0, 1, 2, 50])
    assert numbers_of(data, 1) == [(0.0, 0), (0.2, 2), (5.0, 3)]


@pytest.mark.parametrize("rate", [1000.0, 30.0, 1.0])
def test_the_last_frame_is_given_where_no_duration_is_stated(rate: float) -> None:
    data = video_file(GREYS[:11:10], 1, "webm", "libvpx")
    place = data.index(DURATION) + len(DURATION)
    endless = data[:place] + bytes(8) + data[place + 8 :]
    assert [time for time, _ in numbers_of(endless, rate)] == [0.0, 1.0]


def numbers_of(data: bytes, rate: float) -> list[tuple[float, int]]:
    return [
        (round(frame.time, 3), round(float(frame.rgb.mean()) / 8))
        for frame in video_frames(data, rate, None)
    ]


def test_max_frames_stops_early(greys: bytes) -> None:
    assert numbers(greys, 10, max_frames=4) == [0, 1, 2, 3]


def test_frames_are_resized_like_pictures() -> None:
    data = video_file([picture(48, 64)] * 3)
    (whole,) = video_frames(data, 1, None)
    (small,) = video_frames(data, 1, (20, 30))
    np.testing.assert_array_equal(small.pixels, load_image(whole.rgb, (20, 30)))
    assert small.pixels.shape == (3, 20, 30) and small.pixels.max() <= 1
    (usual,) = video_frames(data)
    assert usual.rgb.shape == (768, 768, 3)


@pytest.mark.parametrize("rotation", [0, 90, 180])
@pytest.mark.parametrize("size", [(20, 36), 96])
def test_fast_resizing_differs_by_a_few_grey_levels(
    rotation: int, size: int | tuple[int, int]
) -> None:
    y, x = np.mgrid[:96, :128]
    smooth = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    data = video_file([smooth] * 3, rotation=rotation)
    (exact,) = video_frames(data, 1, size)
    (fast,) = video_frames(data, 1, size, fast=True)
    assert fast.rgb.shape == exact.rgb.shape
    assert np.abs(fast.rgb.astype(int) - exact.rgb).mean() < 3


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_rotation_is_undone(rotation: int) -> None:
    (plain,) = video_frames(video_file([picture(48, 64)] * 3), 1, None)
    (turned,) = video_frames(video_file([picture(48, 64)] * 3, rotation=rotation), 1, None)
    np.testing.assert_array_equal(turned.rgb, np.rot90(plain.rgb, rotation // 90))


def test_the_matrix_of_a_phone_held_upright_turns_clockwise() -> None:
    """Independent of the library's idea of a sign: the matrix maps x to the right onto y down."""
    data = video_file([picture(48, 64)] * 3)
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    track = data.index(b"tkhd")
    at = data.index(identity, track)
    (plain,) = video_frames(data, 1, None)
    (turned,) = video_frames(data[:at] + clockwise + data[at + len(identity) :], 1, None)
    np.testing.assert_array_equal(turned.rgb, np.rot90(plain.rgb, -1))


def test_pictures_and_sound_of_one_file() -> None:
    data = video_file(GREYS, sound=tone(3.0))
    assert video_info(data).has_sound
    assert numbers(data, 1) == [0, 10, 20]
    assert abs(len(load_sound(data)) / 16000 - 3) < 0.1


def test_frames_come_one_at_a_time(greys: bytes) -> None:
    frames = video_frames(greys, 10, None)
    assert [frame.time for frame in islice(frames, 2)] == [0.0, 0.1]
    frames.close()  # type: ignore[attr-defined]


def no_frames() -> bytes:
    """An MP4 file with a video track whose sample data was overwritten."""
    data = bytearray(video_file(GREYS[:5], codec="libx264"))
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    return bytes(data)


HOSTILE = {
    "nothing": b"",
    "a picture": encoded(Image.fromarray(picture()), "PNG"),
    "an animated picture": encoded(
        Image.fromarray(GREYS[0]), "GIF", save_all=True, append_images=[Image.fromarray(GREYS[9])]
    ),
    "sound in a video file": sound_file(tone(0.5), 16000, "mp4", "aac"),
    "sound": sound_file(tone(0.5), 16000, "wav", "pcm_s16le"),
    "no frames": no_frames(),
    "only a header": video_file(GREYS)[:64],
    "a playlist": b"#EXTM3U\nfile:///etc/passwd\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "half": video_file(GREYS)[:1500],
    "half a webm": video_file(GREYS, 10, "webm", "libvpx")[:900],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_videos_are_refused_at_once(name: str) -> None:
    before = time.monotonic()
    with pytest.raises(InputError) as caught:
        list(video_frames(HOSTILE[name], 10))
    assert time.monotonic() - before < 1
    assert str(caught.value).startswith("bytes: ")


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libvpx"])
def test_frames_beyond_the_limits_are_refused_before_they_are_decoded(codec: str) -> None:
    large = [np.zeros((480, 640, 3), np.uint8)] * 2
    data = video_file(large, container="matroska", codec=codec)
    for limits in (MediaLimits(max_frame_pixels=640 * 480 - 1), MediaLimits(max_side=639)):
        with pytest.raises(InputError, match=r"640 x 480|more than 307199 pixels"):
            list(video_frames(data, 10, 32, limits=limits))
    exact = MediaLimits(max_frame_pixels=640 * 480, max_side=640)
    assert len(list(video_frames(data, 10, 32, limits=exact))) == 2


def test_longer_videos_than_allowed_are_refused(greys: bytes) -> None:
    with pytest.raises(InputError, match="at most 2 s"):
        list(video_frames(greys, limits=MediaLimits(max_stream_seconds=2)))


def test_damage_inside_is_noticed(rng: np.random.Generator) -> None:
    frames = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(30)]
    data = bytearray(video_file(frames))
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = rng.bytes(end - start)
    with pytest.raises(InputError, match=r"damaged|none that can be decoded"):
        list(video_frames(bytes(data), 10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, "rate"),
        ({"rate": -1}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": 1e9}, "rate"),
        ({"size": 0}, "size"),
        ({"times": []}, "times"),
        ({"times": [1.0, 0.5]}, "times"),
        ({"times": [-1.0]}, "times"),
        ({"times": [float("inf")]}, "times"),
        ({"max_frames": 0}, "max_frames"),
    ],
)
def test_bad_arguments_are_refused_at_once(
    greys: bytes, options: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        video_frames(greys, **options)  # type: ignore[arg-type]


def test_an_array_is_no_video() -> None:
    with pytest.raises(InputError, match="expected a video file"):
        video_frames(np.zeros((4, 4, 3), np.uint8))


def test_frame_times_are_even_and_within_the_budget() -> None:
    assert frame_times(4, 100) == (0.5, 1.5, 2.5, 3.5)
    assert frame_times(60, 3) == (10, 30, 50)
    assert frame_times(0.2, 10) == (0.1,)
    assert len(frame_times(10, 100, rate=4)) == 40
    for bad in ((0, 1), (1, 0), (float("nan"), 1), (float("inf"), 1)):
        with pytest.raises(InputError, match="more than 0"):
            frame_times(*bad)


def test_a_frame_budget_leaves_room_for_the_answer() -> None:
    assert frame_budget(8192, 512, 256) == 30
    with pytest.raises(InputError, match=r"one frame of 256 tokens, got 200 of 1000"):
        frame_budget(1000, 800, 256)
