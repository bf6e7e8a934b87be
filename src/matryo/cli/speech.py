"""What `transcribe` and `listen` share: options, and how captions are shown.

In: `CaptionEvent`s. Out: text, caption files or JSON on stdout; on stderr, if it is a terminal,
what is being said, how far it is and how late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matryo.cli.live import LiveLine
from matryo.cli.output import write_json

if TYPE_CHECKING:
    from matryo.inputs.voice import VoiceOptions
    from matryo.loading import Model
    from matryo.speech.captions import Caption, CaptionEvent, Format


class Target(StrEnum):
    """Languages that Gemma 3n translates speech into."""

    EN = "en"
    ES = "es"
    FR = "fr"
    IT = "it"
    PT = "pt"


class CaptionFormat(StrEnum):
    """What is written on stdout."""

    TEXT = "text"
    SRT = "srt"
    VTT = "vtt"
    JSON = "json"


ToOption = Annotated[
    Target | None, typer.Option(help="Translate into this language.", show_default=False)
]
LanguageOption = Annotated[
    str | None,
    typer.Option(
        help="The language that is spoken: a code such as es, or its English name.",
        show_default="the model finds out",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """Where speech is cut into clips."""

    pause: Annotated[
        float, typer.Option(min=0.02, help="Seconds of silence that end a caption.")
    ] = 0.6
    threshold: Annotated[
        float,
        typer.Option(min=1.0, help="Decibels above the background at which speech begins."),
    ] = 10.0
    longest: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            max=30.0,
            help="Longest clip in seconds; the nearer, the shorter a pause ends it.",
            show_default="30, or what the model takes",
        ),
    ] = None
    gate: Annotated[
        bool,
        typer.Option(
            "--gate/--no-gate", help="Leave silence out; without, everything is transcribed."
        ),
    ] = True


def voice_options(model: Model, options: GateOptions) -> VoiceOptions:
    """The gate for a model whose clips may be shorter than Gemma 3n's.

    Raises ConfigError for values that make no gate.
    """
    from matryo.inputs.sound import RATE
    from matryo.inputs.voice import VoiceOptions
    from matryo.media.parts import clip_samples
    from matryo.tower_config import AudioConfig

    config = model.library.towers.require("audio")
    assert isinstance(config, AudioConfig)
    most = clip_samples(config) / RATE
    # The lower threshold follows in the proportion of the defaults.
    return VoiceOptions(
        open_db=options.threshold,
        close_db=0.6 * options.threshold,
        pause_s=options.pause,
        longest_s=min(most, options.longest or most),
        gate=options.gate,
    )


def event_json(event: CaptionEvent) -> dict[str, Any]:
    """One event as plain values; times in seconds."""
    document: dict[str, Any] = {"event": event.kind, "index": event.index}
    if event.caption is not None:
        document |= {**event.caption.to_json(), "lag_s": round(event.lag_s, 3)}
    document["heard_s"] = round(event.heard_s, 3)
    if event.kind == "done":
        document["cancelled"] = event.is_cancelled
    return document


class Shown:
    """Writes captions; `captions` are those that are complete, `lags` how late each was."""

    def __init__(
        self, kind: CaptionFormat, line: LiveLine, *, events_as_json: bool, grows: bool
    ) -> None:
        """grows: whether a partial caption only ever becomes longer, so that it can be written."""
        self._kind, self._line, self._as_json = kind, line, events_as_json
        self._streams = grows and kind is CaptionFormat.TEXT
        self._written = ""  # of the caption that is not complete
        self.captions: list[Caption] = []
        self.lags: list[float] = []
        self.is_cancelled = False

    def show(
        self,
        events: Iterable[CaptionEvent],
        progress: Callable[[CaptionEvent], None] = lambda event: None,
    ) -> None:
        """Write the events as they come; `progress` is told of each afterwards."""
        self._begin()
        for event in events:
            if event.kind == "caption" and event.caption is not None:
                self.captions.append(event.caption)
                self.lags.append(event.lag_s)
            if self._as_json:
                write_json(event_json(event))
            elif event.caption is not None:
                self._write(event.caption, is_whole=event.kind == "caption")
            self.is_cancelled = event.is_cancelled
            progress(event)
        if self._kind is CaptionFormat.JSON and not self._as_json:
            captions = [caption.to_json() for caption in self.captions]
            write_json({"captions": captions, "cancelled": self.is_cancelled}, indent=1)

    def _begin(self) -> None:
        from matryo.speech.captions import header

        if self._kind is CaptionFormat.VTT and not self._as_json:
            self._line.write(header("vtt"))

    def _write(self, caption: Caption, *, is_whole: bool) -> None:
        from matryo.speech.captions import formatted

        if self._kind is CaptionFormat.JSON:
            return
        if is_whole:
            kind: Format = self._kind.value  # type: ignore[assignment]
            self._line.write(self._rest(formatted(caption, len(self.captions), kind)))
            self._written = ""
        elif self._streams:
            self._line.write(self._rest(formatted(caption, 0, "text").rstrip("\n")))
        else:
            self._line.status(lambda: f"… {caption.shown}")

    def _rest(self, text: str) -> str:
        """What of a text is not on the screen yet; all of it, on a new line, if it was changed."""
        if not text.startswith(self._written):
            self._written, before = text, "\n"
            return before + text
        rest = text[len(self._written) :]
        self._written = text
        return rest

    def lag_remark(self) -> str:
        """`12 captions · lag 0.8 s, at most 1.4 s`."""
        count = len(self.captions)
        parts = [f"{count} caption{'s' * (count != 1)}"]
        if self.lags:
            parts.append(f"lag {median(self.lags):.1f} s, at most {max(self.lags):.1f} s")
        return " · ".join(parts)
