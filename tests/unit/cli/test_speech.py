"""Captions on stdout as they come: text grows, subtitles appear whole."""

from __future__ import annotations

import io
import json

import pytest

from matryo.cli.live import LiveLine
from matryo.cli.speech import CaptionFormat, Shown
from matryo.speech.captions import Caption, CaptionEvent

END = CaptionEvent("done", 2, None, 4.0)


def event(kind: str, text: str, translation: str | None = None) -> CaptionEvent:
    caption = Caption(1.0, 2.0, text, translation)
    return CaptionEvent(kind, 0, caption, 2.0, lag_s=0.5)  # type: ignore[arg-type]


ANSWER = [
    event("partial", "one"), event("partial", "one\n\ntwo"), event("caption", "one\n\ntwo."),
    event("partial", "three"), event("caption", "three"), END,
]  # fmt: skip


class Pieces(io.StringIO):
    """Notes what is written at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return super().write(text)


def shown(
    events: list[CaptionEvent], kind: CaptionFormat = CaptionFormat.TEXT, *, grows: bool = True
) -> tuple[list[str], Shown]:
    out = Pieces()
    with LiveLine(out, io.StringIO()) as line:
        writer = Shown(kind, line, events_as_json=False, grows=grows)
        writer.show(events)
    return out.pieces, writer


def test_text_is_written_while_it_grows() -> None:
    assert shown(ANSWER)[0] == ["one", " two", ".\n", "three", "\n"]


def test_text_that_may_change_is_written_when_it_is_whole() -> None:
    assert shown(ANSWER, grows=False)[0] == ["one two.\n", "three\n"]


def test_what_changed_nevertheless_is_written_again() -> None:
    changed = [event("partial", "one too"), event("caption", "one two"), END]
    assert "".join(shown(changed)[0]) == "one too\none two\n"


def test_subtitles_are_never_cut() -> None:
    pieces = shown(ANSWER, CaptionFormat.VTT)[0]
    assert pieces[0] == "WEBVTT\n\n"
    assert pieces[1:] == [
        "00:00:01.000 --> 00:00:02.000\none\ntwo.\n\n",
        "00:00:01.000 --> 00:00:02.000\nthree\n\n",
    ]


def test_json_is_one_document_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    pieces, writer = shown(ANSWER, CaptionFormat.JSON)
    assert pieces == []
    document = json.loads(capsys.readouterr().out)
    assert [caption["text"] for caption in document["captions"]] == ["one\n\ntwo.", "three"]
    assert document["cancelled"] is writer.is_cancelled is False


def test_lags_are_summed_up() -> None:
    assert shown(ANSWER)[1].lag_remark() == "2 captions · lag 0.5 s, at most 0.5 s"
    assert shown([END])[1].lag_remark() == "0 captions"


def test_control_characters_of_a_model_stay_visible() -> None:
    assert shown([event("caption", "a\x1b[2Jb"), END])[0] == ["a\\x1b[2Jb\n"]
