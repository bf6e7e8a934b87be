"""`matryo watch`: questions about a video."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matryo.cli.options import GenerationOptions, JsonOption, LoadOptions

if TYPE_CHECKING:
    from matryo.cli.live import LiveLine
    from matryo.video.watch import WatchEvent


def watch(
    video: Annotated[str, typer.Argument(metavar="VIDEO|URL", help="A video file.")],
    *,
    ask: Annotated[
        str | None,
        typer.Option(help="What to find out.", show_default="a description of what happens"),
    ] = None,
    fps: Annotated[
        float,
        typer.Option(min=0.001, help="Frames a second at most; fewer if the context is too short."),
    ] = 1.0,
    every: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Answer for every so many seconds of the video, as it comes.",
            show_default="one answer for the whole video",
        ),
    ] = None,
    resolution: Annotated[
        int | None,
        typer.Option(
            min=32, max=4096, help="Side of a frame in pixels.", show_default="the checkpoint's"
        ),
    ] = None,
    same: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="From this similarity on (1 = equal) a frame reuses the tokens of the one before; "
            "2 = never.",
        ),
    ] = 0.98,
    sound: Annotated[
        bool, typer.Option("--sound/--no-sound", help="Take the sound track along.")
    ] = True,
    load: LoadOptions,
    generation: GenerationOptions,
    json: JsonOption = False,
) -> None:
    """Answer a question about a video.

    Frames are decoded and encoded while the model reads and writes. With --json every event is one
    line. Ctrl-C stops; what was written stays.
    """
    from matryo.cli.answer import interruptible
    from matryo.cli.attachments import require_encoder
    from matryo.cli.live import LiveLine
    from matryo.cli.models import open_model, open_session, sampling_of
    from matryo.cli.outcome import warn
    from matryo.inputs.source import Source
    from matryo.inputs.video import video_info
    from matryo.video.watch import WatchOptions
    from matryo.video.watch import watch as events_of

    source = Source.of(video, allow_urls=True)
    video_info(source)
    model = open_model(load)
    require_encoder(model, "vision", f"{video} is a video, and ")
    options = WatchOptions(
        rate=fps,
        every_s=every,
        size=resolution,
        threshold=same,
        sound=sound,
        max_tokens=generation.max_tokens,
    )
    with interruptible() as cancel, LiveLine() as line:
        events = events_of(
            model, open_session(model, load), source, ask, options,
            sampling=sampling_of(generation), cancel=cancel,
        )  # fmt: skip
        end = _show_json(events) if json else _show(events, line, in_parts=every is not None)
    if end.sound_left_out and not json:
        warn("the sound track was left out: no encoder of sound, or no room; try --every")
    if end.is_cancelled:
        raise KeyboardInterrupt


def _show(events: Iterable[WatchEvent], line: LiveLine, *, in_parts: bool) -> WatchEvent:
    from matryo.speech.captions import clock

    begun = False
    for event in events:
        if event.kind == "frame":
            line.status(lambda event=event: f"{clock(event.end_s)} · {counts(event)}")  # type: ignore[misc]
        elif event.kind == "text":
            if in_parts and not begun:
                line.write(f"[{clock(event.start_s)}-{clock(event.end_s)}] ")
            begun = True
            line.write(event.text)
        elif event.kind == "answer":
            if begun and not event.text.endswith("\n"):
                line.write("\n")
            begun = False
    line.remark(" · ".join([counts(event), *stage_times(event)]))
    return event


def counts(event: WatchEvent) -> str:
    """`60 frames: 12 encoded, 48 reused`."""
    seen = event.counts
    plural = "s" * (seen.seen != 1)
    return f"{seen.seen} frame{plural}: {seen.encoded} encoded, {seen.reused} reused"


def stage_times(event: WatchEvent) -> list[str]:
    """`decode 1.2 s`, …: how long each stage worked."""
    return [f"{name} {one.busy_s:.1f} s" for name, one in (event.figures or {}).items()]


def _show_json(events: Iterable[WatchEvent]) -> WatchEvent:
    from matryo.cli.output import write_json

    for event in events:
        write_json(event_json(event))
    return event


def event_json(event: WatchEvent) -> dict[str, Any]:
    """One event as plain values; times in seconds."""
    document: dict[str, Any] = {
        "event": event.kind,
        "start_s": round(event.start_s, 3),
        "end_s": round(event.end_s, 3),
        "frames": event.counts.seen,
        "encoded": event.counts.encoded,
        "reused": event.counts.reused,
    }
    if event.kind in ("text", "answer"):
        document["text"] = event.text
    if event.kind == "frame":
        document["new"] = event.is_new
    if event.kind == "done":
        document["cancelled"] = event.is_cancelled
        document["sound_left_out"] = event.sound_left_out
        document["stages"] = {
            name: {
                "items": one.items,
                "busy_s": round(one.busy_s, 4),
                "starved_s": round(one.starved_s, 4),
                "blocked_s": round(one.blocked_s, 4),
            }
            for name, one in (event.figures or {}).items()
        }
    return document
