"""Questions about a video, answered from its frames and its sound.

In: a model, a session, a video file. Out: `WatchEvent`s. While the model reads one frame or writes
an answer, the next frames are decoded and encoded. Without `every_s` the whole video is looked at,
evenly and as closely as the context allows, and one question is answered; with it, each part of so
many seconds is answered for itself, as it comes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from matryo.engine import Cancel
from matryo.errors import CancelledError, ConfigError
from matryo.inputs.changes import DEFAULT_THRESHOLD
from matryo.inputs.limits import DEFAULT_LIMITS, MediaLimits
from matryo.inputs.sound import RATE, sound_pieces
from matryo.inputs.source import Source
from matryo.inputs.video import VideoInfo, frame_times, video_info
from matryo.media.parts import MediaPart, clip_samples
from matryo.pipeline import Pipeline, StageFigures
from matryo.sampling import Sampling
from matryo.session.events import Stats
from matryo.speech.captions import clock
from matryo.tower_config import AudioConfig
from matryo.video.budget import Budget, video_budget
from matryo.video.frames import FrameCounts, SeenFrame, encoded_clips, seen_frames

if TYPE_CHECKING:
    from matryo.loading import Model
    from matryo.session import Session

Kind = Literal["frame", "text", "answer", "done"]
Item = dict[str, Any]

QUESTION = "Describe what happens in this video."
PART_QUESTION = "Describe what happens in this part of a video, in one or two sentences."
SOUND = "sound"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """How a video is looked at.

    rate: frames a second, at most · every_s: seconds of a part, None = the whole video
    size: side of a frame in pixels, None = the checkpoint's · threshold: similarity from which a
    frame reuses the embeddings of one before, more than 1 for never · sound: take it along
    max_tokens: of an answer
    Raises ConfigError for values that cannot be used.
    """

    rate: float = 1.0
    every_s: float | None = None
    size: int | None = None
    threshold: float = DEFAULT_THRESHOLD
    sound: bool = True
    max_tokens: int = 256

    def __post_init__(self) -> None:
        for name in ("rate", "every_s", "size", "max_tokens"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name}: expected more than 0, got {value}")
        if not self.threshold >= 0:
            raise ConfigError(f"threshold: expected a similarity from 0, got {self.threshold}")


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One step of watching.

    kind: frame (the model has read one more), text (more of an answer), answer (one is complete) or
    done (the last event)
    start_s, end_s: the part of the video that this is about; in frame, the time of the frame
    text: the new text, or the whole answer · is_new: of a frame, False if it was a near-duplicate
    counts: frames until now · stats: of the generation · figures: of each stage, in done
    sound_left_out: in done, whether there was sound that found no room
    """

    kind: Kind
    start_s: float
    end_s: float
    counts: FrameCounts
    text: str = ""
    is_new: bool = False
    stats: Stats | None = None
    is_cancelled: bool = False
    figures: dict[str, StageFigures] | None = None
    sound_left_out: bool = False


def watch(
    model: Model,
    session: Session,
    source: object,
    ask: str | None = None,
    options: WatchOptions | None = None,
    *,
    sampling: Sampling | None = None,
    cancel: Cancel | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
) -> Iterator[WatchEvent]:
    """Watch a video file and answer `ask`, or describe what happens.

    cancel: asked between frames and tokens
    Raises at once InputError for a source that is no video, a model without an encoder of pictures
    or options that cannot be used; while iterating for a file that is damaged.
    """
    options = options or WatchOptions()
    opened = Source.of(source, limits=limits, allow_urls=allow_urls)
    info = video_info(opened, limits=limits)
    plan = _Plan.of(model, info, ask, options)

    def events() -> Iterator[WatchEvent]:
        with Pipeline() as line:
            yield from _Watcher(
                model, session, opened, plan, options, line, sampling, cancel, limits
            ).events()

    return events()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is looked at: budget of one part, its length, and when frames are taken."""

    question: str
    budget: Budget
    part_s: float
    rate: float
    times: tuple[float, ...] | None
    size: int
    frame_tokens: int
    clip_tokens: int
    clip_s: float
    sound_left_out: bool

    @classmethod
    def of(cls, model: Model, info: VideoInfo, ask: str | None, options: WatchOptions) -> _Plan:
        library = model.library
        vision = library.towers.require("vision")
        wants_sound = options.sound and info.has_sound and "audio" in library.towers.present
        audio = library.towers.require("audio") if wants_sound else None
        every = options.every_s
        question = ask or (QUESTION if every is None else PART_QUESTION)
        clip_s = 30.0
        if isinstance(audio, AudioConfig):
            clip_s = clip_samples(audio) / RATE
        part_s = every if every is not None else info.seconds
        if every is not None:  # clips end where parts do
            clip_s = every / math.ceil(every / clip_s - 1e-9)
        budget = video_budget(
            context=model.config.context_length,
            question=len(model.tokenizer.encode(question)),
            answer=options.max_tokens,
            frame=vision.ids.count,
            clip=audio.ids.count if audio is not None else 0,
            sound_s=(part_s or math.inf) if audio is not None else 0.0,
            clip_s=clip_s,
        )
        times = None
        rate = options.rate
        if every is not None:
            rate = min(rate, budget.frames / every)
        elif info.seconds:
            times = frame_times(info.seconds, budget.frames, rate)
        return cls(
            question=question,
            budget=budget,
            part_s=math.inf if every is None else every,
            rate=rate,
            times=times,
            size=options.size or library.image_size,
            frame_tokens=vision.ids.count,
            clip_tokens=audio.ids.count if audio is not None else 0,
            clip_s=clip_s,
            sound_left_out=options.sound and info.has_sound and not budget.clips,
        )


class _Watcher:
    """One run over one video."""

    def __init__(
        self,
        model: Model,
        session: Session,
        source: Source,
        plan: _Plan,
        options: WatchOptions,
        line: Pipeline,
        sampling: Sampling | None,
        cancel: Cancel | None,
        limits: MediaLimits,
    ) -> None:
        self._session, self._plan, self._line = session, plan, line
        self._options, self._sampling, self._cancel = options, sampling, cancel
        self._counts, self._is_cancelled = FrameCounts(), False
        self._frames = seen_frames(
            line,
            model.library,
            source,
            tokens=plan.frame_tokens,
            size=plan.size,
            rate=plan.rate,
            times=plan.times,
            # Without a length in the header the video may be longer than the context.
            max_frames=plan.budget.frames if plan.part_s == math.inf else None,
            threshold=options.threshold,
            ahead=min(plan.budget.frames, 64),
            cancel=cancel,
            limits=limits,
        )
        self._clips: Iterator[MediaPart | None] = iter(())
        self._last: SeenFrame | None = None
        if plan.budget.clips:
            pieces = sound_pieces(source, plan.clip_s, limits=limits)
            clips = encoded_clips(pieces, model.library, tokens=plan.clip_tokens, cancel=cancel)
            self._clips = line.stage(SOUND, clips, capacity=2)

    def events(self) -> Iterator[WatchEvent]:
        start, end, items = 0.0, 0.0, list[Item]()
        try:
            for frame in self._frames:
                while frame.time >= start + self._plan.part_s - 1e-6 and not self._stopped():
                    yield from self._answered(items, start, start + self._plan.part_s)
                    start, items = start + self._plan.part_s, []
                if self._stopped():
                    break
                items += self._items(frame)
                end, self._last = frame.time, frame
                self._session.prefill(self._messages(items), cancel=self._cancel)
                self._counts.add(frame)
                yield self._event("frame", end, end, is_new=frame.is_new)
            if items and not self._stopped():
                yield from self._answered(items, start, end)
        except CancelledError:
            self._is_cancelled = True
        yield WatchEvent(
            "done", 0.0, end, self._copied(),
            is_cancelled=self._is_cancelled, figures=self._line.figures(),
            sound_left_out=self._plan.sound_left_out,
        )  # fmt: skip

    def _answered(self, items: list[Item], start: float, end: float) -> Iterator[WatchEvent]:
        """The sound of this part, the question, and the answer."""
        if not items and self._last is not None:  # the last frame is still on screen
            items = self._items(SeenFrame(start, self._last.part, False))
        items = [*items, *self._sound(), {"type": "text", "text": self._plan.question}]
        answer = ""
        for event in self._session.generate(
            self._messages(items),
            max_tokens=self._options.max_tokens,
            sampling=self._sampling,
            cancel=self._cancel,
        ):
            answer += event.text
            if event.text:
                yield self._event("text", start, end, text=event.text, stats=event.stats)
            if event.kind == "done":
                self._is_cancelled = event.finish_reason == "cancelled"
                yield self._event("answer", start, end, text=answer, stats=event.stats)

    def _sound(self) -> Iterator[Item]:
        """The clips of this part; the whole video is one part."""
        for _, part in zip(range(self._plan.budget.clips), self._clips, strict=False):
            if part is not None:
                yield {"type": "audio", "audio": part}

    def _items(self, frame: SeenFrame) -> list[Item]:
        return [
            {"type": "text", "text": f"{clock(frame.time)}"},
            {"type": "image", "image": frame.part},
        ]

    @staticmethod
    def _messages(items: list[Item]) -> list[dict[str, Any]]:
        return [{"role": "user", "content": items}]

    def _stopped(self) -> bool:
        if self._cancel is not None and self._cancel.is_set():
            self._is_cancelled = True
        return self._is_cancelled

    def _copied(self) -> FrameCounts:
        return FrameCounts(self._counts.seen, self._counts.encoded)

    def _event(self, kind: Kind, start: float, end: float, **values: Any) -> WatchEvent:
        return WatchEvent(kind, start, end, self._copied(), **values)
