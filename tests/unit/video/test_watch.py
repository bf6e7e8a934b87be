"""A tiny model watches videos: what it is shown, in parts or whole, with sound or without."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import matryo
from helpers.media import picture, tone, video_file
from matryo.errors import ConfigError, InputError
from matryo.video.watch import WatchEvent, WatchOptions, watch

BLACK, WHITE = np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 255, np.uint8)
SCENES = [BLACK] * 10 + [WHITE] * 10 + [picture(48, 64)] * 10
SILENT = video_file(SCENES, fps=10)
LOUD = video_file(SCENES, fps=10, sound=tone(3.0))


@pytest.fixture(scope="module")
def model(seeing_checkpoint: Path) -> Iterator[matryo.Model]:
    with matryo.load(seeing_checkpoint, weights="f32") as model:
        yield model


def run(
    model: matryo.Model,
    video: object,
    ask: str | None = None,
    session: matryo.Session | None = None,
    cancel: threading.Event | None = None,
    **options: Any,
) -> list[WatchEvent]:
    chosen = WatchOptions(**{"max_tokens": 4, **options})
    return list(
        watch(
            model, model.session() if session is None else session, video, ask, chosen,
            sampling=matryo.GREEDY, cancel=cancel,
        )
    )  # fmt: skip


def media_of(session: matryo.Session) -> list[str]:
    return [one.part.tower for one in session._placed]


def test_the_whole_video_is_looked_at_evenly_and_answered_once(model: matryo.Model) -> None:
    session = model.session()
    events = run(model, SILENT, "What?", session)
    frames = [event for event in events if event.kind == "frame"]
    assert [event.end_s for event in frames] == [0.5, 1.5, 2.5]
    (answer,) = (event for event in events if event.kind == "answer")
    assert "".join(event.text for event in events if event.kind == "text") == answer.text
    assert (answer.start_s, answer.end_s) == (0.0, 2.5)
    assert media_of(session) == ["vision"] * 3
    assert answer.stats is not None
    assert answer.stats.cached_tokens > 3 * 16  # frames were read before the question
    assert events[-1].kind == "done" and not events[-1].is_cancelled


def test_the_answer_is_that_of_the_same_pictures_in_one_prompt(model: matryo.Model) -> None:
    """Reading frames one after another changes nothing."""
    session = model.session()
    (answer,) = (e for e in run(model, LOUD, "What?", session) if e.kind == "answer")
    parts = [one.part for one in session._placed]
    items: list[dict[str, Any]] = []
    for time, part in zip(("0:00", "0:01", "0:02"), parts, strict=False):
        items += [{"type": "text", "text": time}, {"type": "image", "image": part}]
    items += [{"type": "audio", "audio": part} for part in parts[3:]]
    items.append({"type": "text", "text": "What?"})
    fresh = model.session().generate(
        [{"role": "user", "content": items}], max_tokens=4, sampling=matryo.GREEDY
    )
    assert "".join(event.text for event in fresh) == answer.text
    assert len(parts) == 5  # 3 s of sound are two clips of this model


def test_parts_are_answered_as_they_come(model: matryo.Model) -> None:
    session = model.session()
    events = run(model, SILENT, every_s=1.0, rate=5.0, session=session)
    kinds = [event.kind for event in events if event.kind in ("frame", "answer")]
    assert kinds == (["frame"] * 5 + ["answer"]) * 3
    spans = [(e.start_s, e.end_s) for e in events if e.kind == "answer"]
    assert spans == [(0.0, 1.0), (1.0, 2.0), (2.0, pytest.approx(2.8))]
    assert media_of(session) == ["vision"] * 5
    done = events[-1]
    assert (done.counts.seen, done.counts.encoded, done.counts.reused) == (15, 3, 12)


def test_a_part_without_a_new_frame_shows_the_last_one(model: matryo.Model) -> None:
    still = video_file([BLACK, WHITE, WHITE], fps=10, times=[0, 5, 29])
    answers = [e for e in run(model, still, every_s=1.0, rate=10.0) if e.kind == "answer"]
    assert [answer.start_s for answer in answers] == [0.0, 1.0, 2.0]


def test_sound_comes_along_in_its_part(model: matryo.Model) -> None:
    session = model.session()
    run(model, LOUD, session=session, every_s=1.0)
    assert media_of(session) == ["vision", "audio"]
    run(model, LOUD, session=session, every_s=1.0, sound=False)
    assert media_of(session) == ["vision"]


def test_sound_without_room_is_left_out_and_said(model: matryo.Model) -> None:
    long = video_file([BLACK] * 40, fps=1, sound=tone(40.0))
    events = run(model, long, rate=0.1)
    assert events[-1].sound_left_out
    assert not run(model, SILENT)[-1].sound_left_out


def test_no_more_frames_than_the_context_has_room_for(model: matryo.Model) -> None:
    session = model.session()
    events = run(model, video_file(SCENES * 3, fps=10), "What?", session, rate=100.0)
    frames = [event for event in events if event.kind == "frame"]
    assert 20 < len(frames) < 40
    assert len(session) <= model.config.context_length
    assert frames[-1].end_s > 8.0  # to the end of the 9 s


def test_cancelling_while_frames_are_read_and_while_an_answer_is_written(
    model: matryo.Model,
) -> None:
    for kind in ("frame", "text"):
        cancel = threading.Event()
        events = []
        for event in watch(
            model, model.session(), SILENT, None, WatchOptions(every_s=1.0, max_tokens=50),
            sampling=matryo.GREEDY, cancel=cancel,
        ):  # fmt: skip
            events.append(event)
            if event.kind == kind:
                cancel.set()
        assert events[-1].is_cancelled
        assert len([event for event in events if event.kind == "answer"]) == (kind == "text")
    assert [one.name for one in threading.enumerate() if one.name.startswith("matryo-")] == []


def test_the_stages_say_what_they_did(model: matryo.Model) -> None:
    figures = run(model, LOUD)[-1].figures
    assert figures is not None
    assert list(figures) == ["decode", "encode", "sound"]
    assert figures["decode"].items == 3 and figures["encode"].busy_s > 0


@pytest.mark.parametrize(
    "options",
    [
        {"every_s": 0.0}, {"rate": 0.0}, {"rate": float("nan")}, {"rate": float("inf")},
        {"size": 0}, {"max_tokens": 0}, {"threshold": -0.1}, {"threshold": float("nan")},
    ],
)  # fmt: skip
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))}: expected"):
        WatchOptions(**options)


def test_what_cannot_be_watched_is_refused_at_once(
    model: matryo.Model, tiny_checkpoint: Path
) -> None:
    with pytest.raises(InputError, match="expected a video"):
        watch(model, model.session(), b"RIFF....WAVEfmt nothing")
    with (
        matryo.load(tiny_checkpoint) as text_only,
        pytest.raises(InputError, match="no encoder of pictures"),
    ):
        watch(text_only, text_only.session(), SILENT)
    with pytest.raises(InputError, match="cut off"):
        run(model, SILENT[:-300])
