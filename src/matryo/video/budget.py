"""How many frames and clips of a video a prompt has room for.

In: the context, what is asked, and what the file states. Out: a `Budget`. A picture costs its soft
tokens and a few around them whatever it shows; a clip of sound costs as many as the longest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from matryo.inputs.video import frame_budget

AROUND = 12  # tokens beside the soft ones: begin, end, line breaks, the time
SOUND_SHARE = 0.25  # of the context, at most
_TEMPLATE = 32  # tokens of turns and begin


@dataclass(frozen=True, slots=True)
class Budget:
    """What a prompt may hold; frame_tokens: of one frame with what is around it."""

    frames: int
    clips: int
    frame_tokens: int
    clip_tokens: int


def video_budget(
    *,
    context: int,
    question: int,
    answer: int,
    frame: int,
    clip: int = 0,
    sound_s: float = 0.0,
    clip_s: float = 30.0,
) -> Budget:
    """Room for frames beside a question, an answer (tokens) and the sound, if it fits.

    frame, clip: soft tokens of one · sound_s: seconds of sound wanted, 0 for none · clip_s: of a
    clip. `clips` is 0 if the sound takes more than its share, or if nobody knows how long it is.
    Raises InputError if there is no room for a single frame.
    """
    frame_tokens, clip_tokens = frame + AROUND, clip + AROUND
    reserved = question + answer + _TEMPLATE
    clips = 0
    if clip and 0 < sound_s < math.inf:
        clips = math.ceil(sound_s / clip_s - 1e-9)
        # Rather no sound than no picture.
        if clips * clip_tokens > min(SOUND_SHARE * context, context - reserved - frame_tokens):
            clips = 0
    reserved += clips * clip_tokens
    return Budget(frame_budget(context, reserved, frame_tokens), clips, frame_tokens, clip_tokens)
