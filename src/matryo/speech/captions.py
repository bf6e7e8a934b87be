"""Captions, and how they are written: plain text, SubRip (SRT), WebVTT.

In: captions in the order of their times. Out: text of files that players read. Sources: the W3C
recommendation of WebVTT; for SubRip, which has none, what its program writes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from matryo.session.events import Stats

Kind = Literal["partial", "caption", "done"]
Format = Literal["text", "srt", "vtt"]


@dataclass(frozen=True, slots=True)
class Caption:
    """What was said between two times, in seconds.

    text: as spoken · translation: None if none was asked for
    """

    start_s: float
    end_s: float
    text: str
    translation: str | None = None

    @property
    def shown(self) -> str:
        """The translation if there is one, else the text."""
        return self.text if self.translation is None else self.translation

    def to_json(self) -> dict[str, Any]:
        """Plain values, times rounded to milliseconds; no translation if none was asked for."""
        values = asdict(self)
        values["start_s"], values["end_s"] = round(self.start_s, 3), round(self.end_s, 3)
        if self.translation is None:
            del values["translation"]
        return values


@dataclass(frozen=True, slots=True)
class CaptionEvent:
    """One step of listening.

    kind: partial (what is known of a caption up to now; the next event may say it anew), caption
    (one is complete and will not change) or done (the last event)
    index: number of the caption, from 0; in done, how many there were
    caption: None in done · heard_s: seconds of sound that were taken in
    lag_s: from the moment the last of this sound was there to this event; 0 in done
    stats: of the generation, None before its first token and in done
    is_cancelled: in done, whether it was stopped from outside
    """

    kind: Kind
    index: int
    caption: Caption | None
    heard_s: float
    lag_s: float = 0.0
    stats: Stats | None = None
    is_cancelled: bool = False


def header(kind: Format) -> str:
    """What a file of captions begins with."""
    return "WEBVTT\n\n" if kind == "vtt" else ""


def formatted(caption: Caption, number: int, kind: Format) -> str:
    """One caption of a file, with the line end; `number` counts from 1."""
    if kind == "text":
        return _lines(caption.shown, " ") + "\n"
    start, end = round(caption.start_s * 1000), round(caption.end_s * 1000)
    end = max(end, start + 1)  # players skip captions that last no time
    if kind == "srt":
        # A line of its own that looks like a time would begin another caption.
        text = _lines(caption.shown, "\n").replace("-->", "->")
        return f"{number}\n{_time(start, ',')} --> {_time(end, ',')}\n{text}\n\n"
    text = _lines(caption.shown, "\n")
    for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, escape)
    return f"{_time(start, '.')} --> {_time(end, '.')}\n{text}\n\n"


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`, for people."""
    whole = int(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _time(milliseconds: int, separator: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{separator}{rest:03}"


def _lines(text: str, separator: str) -> str:
    """The lines that hold something: an empty one would end the caption."""
    return separator.join(line.strip() for line in text.splitlines() if line.strip())
