"""Pictures, sound and video on the command line, on a tiny multimodal model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from e2e.program import Terminal, invoke, matryo
from helpers.media import picture, sound_file, tone, video_file
from helpers.speech import conversation

GREEDY = ("--temperature", "0", "-n", "6")
SRT = r"{}\n\d\d:\d\d:\d\d,\d{{3}} --> \d\d:\d\d:\d\d,\d{{3}}\n.+\n\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """photo, question, clip, talk: a picture, 1 s of sound, 2 s of video, two utterances."""
    directory = tmp_path_factory.mktemp("files")
    Image.fromarray(picture(48, 64)).save(directory / "photo.png")
    scenes = [picture(48, 64)] * 10 + [255 - picture(48, 64)] * 10
    contents = {
        "question.wav": sound_file(tone(1.0), 16000, "wav", "pcm_s16le"),
        "clip.mp4": video_file(scenes, 10, sound=tone(2.0)),
        "talk.wav": sound_file(conversation(1.1, 0.7)[None], 16000, "wav", "pcm_s16le"),
    }
    for name, data in contents.items():
        (directory / name).write_bytes(data)
    return {path.stem: path for path in directory.iterdir()}


@pytest.fixture
def seeing(seeing_checkpoint: Path) -> tuple[str, ...]:
    return ("-m", str(seeing_checkpoint), "--weights", "f32")


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_run_takes_attachments_in_their_order(
    home: Path, seeing: tuple[str, ...], files: dict[str, Path]
) -> None:
    def tokens(*names: str) -> tuple[int, str]:
        attached = [word for name in names for word in ("-a", files[name])]
        done = invoke("run", "What is this?", *attached, *seeing, *GREEDY, "--json", home=home)
        assert done.returncode == 0, done.stderr
        end = events(done.stdout)[-1]
        return end["prompt_tokens"], end["text"]

    text, picture_, sound = tokens()[0], tokens("photo")[0], tokens("question")[0]
    assert picture_ - text >= 16 and sound - text >= 12
    both = tokens("photo", "question")
    assert both[0] == picture_ + sound - text
    assert tokens("question", "photo")[1] != both[1]
    video = tokens("clip")[0]  # two frames, and 2 s of sound in two clips
    assert video - text == 2 * (picture_ - text) + 2 * (sound - text)


def test_run_continues_raw_text_after_a_picture(
    home: Path, seeing: tuple[str, ...], files: dict[str, Path]
) -> None:
    done = invoke("run", "the", "--raw", "-a", files["photo"], *seeing, *GREEDY, home=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_all_bad_attachments_are_named_in_one_block(
    home: Path, files: dict[str, Path], checkpoint: Path
) -> None:
    done = invoke(
        "run", "What?", "-a", files["photo"], "-a", files["question"], "-a", "missing.png",
        "-m", checkpoint, home=home,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    first, *others = done.stderr.splitlines()
    assert first == "error: 3 of 3 attachments cannot be used:"
    assert [line.split(": ")[0] for line in others] == [
        f"  {files['photo']}", f"  {files['question']}", "  missing.png",
    ]  # fmt: skip
    assert "has no vision encoder; use -m" in others[0]
    assert "has no audio encoder; use -m" in others[1]
    assert "cannot be read" in others[2]


def test_a_file_that_is_no_media_is_refused(
    home: Path, seeing: tuple[str, ...], tmp_path: Path
) -> None:
    text = tmp_path / "photo.jpg"
    text.write_text("not a picture at all")
    done = invoke("run", "What?", "-a", text, *seeing, home=home)
    assert done.returncode == 1
    assert "expected a picture" in done.stderr and done.stderr.count("error:") == 1


def test_chat_attaches_saves_and_goes_on(
    home: Path, seeing: tuple[str, ...], files: dict[str, Path], tmp_path: Path
) -> None:
    saved = tmp_path / "talk.session"
    lines = f"/attach {files['photo']}\n/attach {files['question']}\nhi\n/save {saved}\nagain\n"
    done = invoke("chat", *seeing, *GREEDY, home=home, stdin=lines)
    assert done.returncode == 0, done.stderr
    assert "the next message comes with: image, audio" in done.stderr
    content = json.loads(Path(f"{saved}.json").read_text())[0]["content"]
    assert [item["type"] for item in content] == ["image", "audio", "text"]
    assert content[0]["path"] == str(files["photo"])
    again = invoke("chat", *seeing, *GREEDY, home=home, stdin=f"/load {saved}\nagain\n")
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]


def test_chat_refuses_an_attachment_and_says_why(
    home: Path, files: dict[str, Path], checkpoint: Path
) -> None:
    done = invoke("chat", "-m", checkpoint, home=home, stdin=f"/attach {files['photo']}\n")
    assert done.returncode == 1
    assert "has no vision encoder" in done.stderr
    assert invoke("chat", home=home, stdin="/attach\n").stderr.strip() == "error: name a file"


def test_transcribe_writes_every_format(
    home: Path, seeing: tuple[str, ...], files: dict[str, Path]
) -> None:
    def written(*options: str) -> str:
        done = invoke("transcribe", files["talk"], *seeing, "-n", "6", *options, home=home)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first, second = written().splitlines()
    srt = written("--format", "srt")
    assert re.fullmatch(SRT.format(1) + SRT.format(2), srt)
    assert srt.splitlines()[2] == first
    vtt = written("--format", "vtt")
    assert vtt.startswith("WEBVTT\n\n00:00:0") and vtt.count("-->") == 2
    captions = json.loads(written("--format", "json"))["captions"]
    assert [caption["text"] for caption in captions] == [first, second]
    assert 0.7 < captions[0]["start_s"] < captions[0]["end_s"] < 2.5 < captions[1]["start_s"]
    translated = json.loads(written("--format", "json", "--to", "es"))["captions"]
    assert {"text", "translation"} <= set(translated[0])


def test_transcribe_streams_events(
    home: Path, seeing: tuple[str, ...], files: dict[str, Path]
) -> None:
    done = invoke("transcribe", files["talk"], *seeing, "-n", "6", "--json", home=home)
    found = events(done.stdout)
    assert {event["event"] for event in found[:-1]} == {"partial", "caption"}
    assert found[-1] == {"event": "done", "index": 2, "heard_s": found[-2]["heard_s"],
                         "cancelled": False}  # fmt: skip


def test_ctrl_c_keeps_the_captions_that_there_are(
    home: Path, seeing: tuple[str, ...], tmp_path: Path
) -> None:
    long = tmp_path / "long.wav"
    long.write_bytes(
        sound_file(conversation(*[1.0] * 200, pause=0.7)[None], 16000, "wav", "pcm_s16le")
    )
    with Terminal("transcribe", long, *seeing, "--format", "srt", "-n", "8", home=home) as screen:
        screen.expect("2\r\n00:00:")
        screen.type("\x03")
        assert screen.wait() == 130
    assert "Traceback" not in screen.screen
    assert "1\r\n00:00:00," in screen.screen and "\n200\r\n" not in screen.screen


def test_ctrl_c_ends_listening_and_watching(
    home: Path, seeing: tuple[str, ...], files: dict[str, Path], tmp_path: Path
) -> None:
    long = tmp_path / "long.mp4"
    still = [picture(48, 64)] * 600
    long.write_bytes(video_file(still, 10, sound=conversation(*[0.7] * 30, pause=0.7)[None]))
    with Terminal("listen", long, *seeing, "-n", "4", home=home) as screen:
        screen.expect("lag 0.")
        screen.type("\x03")
        assert screen.wait() == 130
    with Terminal(
        "watch", long, *seeing, "--every", "2", "--fps", "5", "-n", "200", home=home
    ) as other:
        other.expect("[0:02-0:04]")
        other.type("\x03")
        assert other.wait() == 130
    assert "Traceback" not in screen.screen + other.screen
    assert re.search(r"\d+ frames: 1 encoded, \d+ reused", other.screen)


def test_listen_captions_a_file_while_it_is_played(
    home: Path, seeing: tuple[str, ...], files: dict[str, Path]
) -> None:
    done = invoke(
        "listen", files["talk"], *seeing, "-n", "6", "--partial", "0.4", "--json", home=home
    )
    assert done.returncode == 0, done.stderr
    found = events(done.stdout)
    captions = [event for event in found if event["event"] == "caption"]
    assert [event["index"] for event in captions] == [0, 1]
    assert all(event["lag_s"] > 0.3 for event in captions)  # a pause has to be one first
    assert invoke("listen", "--no-fill", files["photo"], *seeing, home=home).returncode == 1
    whole = invoke("transcribe", files["talk"], *seeing, "-n", "6", home=home)
    assert [event["text"] for event in captions] == whole.stdout.splitlines()


def test_watch_answers_and_counts_frames(
    home: Path, seeing: tuple[str, ...], files: dict[str, Path]
) -> None:
    done = invoke("watch", files["clip"], "--ask", "What?", *seeing, *GREEDY, home=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    parts = invoke(
        "watch", files["clip"], "--every", "1", "--fps", "5", *seeing, *GREEDY, "--json", home=home
    )
    found = events(parts.stdout)
    assert [event["event"] for event in found].count("answer") == 2
    end = found[-1]
    assert (end["frames"], end["encoded"], end["reused"]) == (10, 2, 8)
    assert end["stages"]["decode"]["items"] == 10
    every = invoke(
        "watch", files["clip"], "--fps", "5", "--same", "2", *seeing, *GREEDY, "--json", home=home
    )
    assert events(every.stdout)[-1]["encoded"] == 10


@pytest.mark.parametrize(
    ("command", "file", "message"),
    [
        ("transcribe", "talk", "has no audio encoder; use -m"),
        ("listen", "talk", "has no audio encoder; use -m"),
        ("watch", "clip", "has no vision encoder; use -m"),
    ],
)
def test_a_text_only_model_says_what_it_lacks(
    home: Path, files: dict[str, Path], checkpoint: Path, command: str, file: str, message: str
) -> None:
    done = invoke(command, files[file], "-m", checkpoint, home=home)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("transcribe", "photo"), "expected sound"),
        (("watch", "question"), "expected a video"),
        (("transcribe", "talk", "--language", "xx"), "language: expected"),
    ],
)
def test_files_and_options_that_do_not_fit(
    home: Path,
    seeing: tuple[str, ...],
    files: dict[str, Path],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    command, file, *options = arguments
    done = invoke(command, files[file], *options, *seeing, home=home)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_the_microphone_needs_its_package(home: Path, seeing: tuple[str, ...]) -> None:
    done = invoke("listen", *seeing, home=home)
    assert done.returncode == 1
    assert "microphone" in done.stderr


def test_bench_video_reports_every_stage_of_every_size(home: Path, seeing_checkpoint: Path) -> None:
    done = invoke(
        "bench", "video", seeing_checkpoint, "--resolution", "64", "--resolution", "96",
        "--rounds", "1", "--seconds", "0.05", "--json", home=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report["sizes"]) == ["64", "96"]
    for size in report["sizes"].values():
        assert set(size["stage_frames_per_s"]) == {"decode", "decode_resize", "compare", "encode"}
        assert all(one["median"] > 0 for one in size["stage_frames_per_s"].values())
        holds = size["holds_60"]["encode"]
        assert holds == (size["stage_frames_per_s"]["encode"]["median"] >= 60)
        assert 0.7 < size["share_reused"] < 0.9  # five of six frames stand still
        assert np.isfinite(size["frames_per_s"]["reusing"]["median"])


def test_bench_video_prints_a_table_for_a_file_of_ones_own(
    home: Path, seeing_checkpoint: Path, files: dict[str, Path], checkpoint: Path
) -> None:
    done = invoke(
        "bench", "video", seeing_checkpoint, "--video", files["clip"], "--resolution", "64",
        "--rounds", "1", "--seconds", "0.05", home=home, COLUMNS="120",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "Frames a second, median" in text and "60 frames a second" in text
    assert invoke("bench", "video", checkpoint, home=home).returncode == 1


def test_help_knows_the_command_of_two_words(home: Path) -> None:
    assert "bench video" in matryo("--help", home=home).stdout
    assert "for each input size and stage" in invoke("bench", "video", "--help", home=home).stdout
    assert "Measure the speed of every size" in invoke("bench", "--help", home=home).stdout
