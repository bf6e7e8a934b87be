"""Room in the context for frames, sound, question and answer."""

from __future__ import annotations

import math

import pytest

from matryo.errors import InputError
from matryo.video.budget import AROUND, video_budget

GEMMA = {"context": 32_768, "question": 20, "answer": 256, "frame": 256, "clip": 188}


def test_everything_fits() -> None:
    budget = video_budget(**GEMMA, sound_s=61.0)
    assert budget.clips == 3
    used = budget.frames * budget.frame_tokens + 3 * budget.clip_tokens + 20 + 256
    assert used <= 32_768 < used + 2 * budget.frame_tokens
    assert budget.frame_tokens == 256 + AROUND


def test_without_sound_there_is_room_for_more_frames() -> None:
    assert video_budget(**GEMMA).frames > video_budget(**GEMMA, sound_s=600.0).frames
    assert video_budget(**GEMMA).clips == 0


def test_a_clip_that_is_exactly_full_is_one() -> None:
    assert video_budget(**GEMMA, sound_s=30.0).clips == 1
    assert video_budget(**GEMMA, sound_s=30.01).clips == 2


def test_sound_that_takes_too_much_is_left_out() -> None:
    assert video_budget(**GEMMA, sound_s=3600.0).clips == 0
    assert video_budget(**GEMMA, sound_s=math.inf).clips == 0


def test_rather_no_sound_than_no_picture() -> None:
    budget = video_budget(context=860, question=20, answer=350, frame=256, clip=188, sound_s=5.0)
    assert (budget.frames, budget.clips) == (1, 0)


def test_no_room_for_a_single_frame() -> None:
    with pytest.raises(InputError, match="room for at least one frame"):
        video_budget(context=512, question=20, answer=256, frame=256)
