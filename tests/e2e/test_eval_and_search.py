"""`matryo eval` and `matryo search`: figures, files, and what cannot be used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from e2e.program import COMMAND, environment, invoke, matryo
from helpers.media import sound_file, tone

QUESTIONS = [
    {"question": f"a b {number}", "choices": ["the", "b a e", "th"], "answer": number % 3}
    for number in range(24)
]
QUICK = ("--budget", "10h", "--trials", "2", "--window", "16", "--weights", "f32")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    lines = [json.dumps(row) for row in QUESTIONS]
    file.write_text("\n".join([*lines, "{broken", '{"question": "q"}', "[]", "7"]))
    return file


def test_eval_shows_every_size_and_says_which_rows_do_not_count(
    home: Path, packed: Path, questions: Path
) -> None:
    done = invoke("eval", packed, "--task", questions, home=home, COLUMNS="140")
    assert done.returncode == 0, done.stderr
    for word in ("questions: 24 rows, 33.3 % by chance", "small", "medium", "beside large", "["):
        assert word in done.stdout
    assert "warning: left out: questions.jsonl line 25: not a JSON document" in done.stderr
    assert "warning: left out: 1 more rows" in done.stderr


def test_eval_writes_all_it_asked_and_goes_on_from_its_store(
    home: Path, packed: Path, questions: Path, tmp_path: Path
) -> None:
    options = ("--size", "small,large", "--limit", "9", "--store", tmp_path / "s.sqlite")
    first, second = (
        invoke(
            "eval", packed, "-t", questions, *options, "--json", "-o", tmp_path / name, home=home
        )
        for name in ("one.json", "two.json")
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    document = json.loads((tmp_path / "one.json").read_text())
    shown = json.loads(first.stdout)
    assert len(document.pop("rows")) == 9 and document == shown
    assert list(shown["sizes"]) == ["small", "large"]
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_a_killed_search_goes_on_and_writes_plans_that_every_size_option_takes(
    home: Path, packed: Path, questions: Path, tmp_path: Path
) -> None:
    store, plans = tmp_path / "s.sqlite", tmp_path / "plans.json"
    words = ("search", packed, "-t", questions, *QUICK, "--store", store, "-o", plans)
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before = time.monotonic()
    while kept_rows(store) < 100 and time.monotonic() - before < 120:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    known = kept_rows(store)
    assert known >= 100 and not plans.exists()
    done = matryo(*words, home=home, COLUMNS="140")
    assert done.returncode == 0, done.stderr
    assert kept_rows(store) > known
    assert "small *" in done.stdout and "large *" in done.stdout
    assert (tmp_path / "plans.png").read_bytes().startswith(b"\x89PNG")
    assert "| **large** |" in (tmp_path / "plans.md").read_text()
    size = f"{plans}:{next(iter(json.loads(plans.read_text())['plans']))}"
    for command in (
        ("run", "a b", "-m", packed, "-n", "2", "--size", size),
        ("eval", packed, "-t", questions, "--limit", "2", "--size", f"small,{size}"),
        ("slice", packed, tmp_path / "cut", "--size", size),
    ):
        used = invoke(*command, home=home)
        assert used.returncode == 0, used.stderr


def kept_rows(store: Path) -> int:
    """Rows that another process has committed."""
    import sqlite3

    if not store.exists():
        return 0
    try:
        with sqlite3.connect(store, timeout=30) as opened:
            found = opened.execute("SELECT count(*) FROM results").fetchone()
        opened.close()
    except sqlite3.OperationalError:  # the table is not there yet
        return 0
    return int(found[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("eval", "-t", "nothing"), "error: no task 'nothing'"),
        (("eval", "-t", "{questions}", "--size", "small,,large"), "--size: expected names"),
        (("eval", "-t", "{questions}", "--size", "huge"), "no plan named 'huge'"),
        (("eval", "-t", "{questions}", "--store", "{directory}"), "cannot be used to keep"),
        (("search", "-t", "{questions}", "--budget", "soon"), "budget: expected a time"),
        (("search", "-t", "{questions}", "--budget", "0s"), "budget: expected a time"),
        (("search", "-t", "{questions}", "--objective", "speed"), "objectives: expected quality"),
        (("search", "-t", "{questions}", "--metric", "wer"), "no metric 'wer'"),
        (("search", "-t", "{questions}", "-o", "plans.txt"), "ends in .json"),
        *(
            ((command, option, "{questions}", "-o", "{directory}/no/p.json"), "no such directory")
            for command, option in (("search", "-t"), ("eval", "-t"), ("calibrate", "--text"))
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(
    home: Path, packed: Path, questions: Path, words: tuple[str, ...], message: str
) -> None:
    places = {"questions": str(questions), "directory": str(questions.parent)}
    command, *options = (word.format(**places) for word in words)
    done = invoke(command, packed, *options, home=home)
    assert done.returncode == 1 and done.stdout == ""
    assert message in done.stderr and done.stderr.count("\n") <= 4


def test_an_output_is_tried_before_the_work(
    home: Path, packed: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the model was opened")

    monkeypatch.setattr("matryo.load", load)
    for command in ("search", "eval", "calibrate"):
        done = invoke(command, packed, "-t", questions, "-o", "/nonexistent/x.json", home=home)
        assert done.stderr == "error: --output: no such directory: /nonexistent\n"


@pytest.mark.parametrize(("is_chat", "is_empty"), [(True, True), (True, False), (False, True)])
def test_empty_answers_to_plain_prompts_name_the_chat_template(
    home: Path,
    packed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_chat: bool,
    is_empty: bool,
) -> None:
    answer = {"text": " " * is_empty or "a", "tokens": 1, "reason": "stop"}
    monkeypatch.setattr(
        "matryo.evaluate.answers.Answerer.answer",
        lambda self, plan, items: ((item, answer) for item in items),
    )
    if not is_chat:
        monkeypatch.setattr("matryo.cli.eval.has_template", lambda model: False)
    messages = [{"role": "user", "content": "b"}, {"role": "assistant", "content": "a"}]
    rows = [{"prompt": "a b", "reference": "a"}, {"prompt": "b", "reference": "b"}]
    task = tmp_path / "task.jsonl"
    task.write_text("\n".join(map(json.dumps, [*rows, {"messages": messages}])))
    done = invoke("eval", packed, "-t", task, "--size", "small", home=home)
    assert done.returncode == 0
    warned = "warning: 2 of 2 answers to prompts are empty: a prompt is continued as text"
    assert (warned in done.stderr) == (is_chat and is_empty), done.stderr


def spoken_task(directory: Path, count: int, seconds: float = 0.4) -> Path:
    rows = []
    for number in range(count):
        clip = directory / f"{number}.wav"
        sound = tone(seconds, hertz=200.0 + 60 * number)
        clip.write_bytes(sound_file(sound, 16000, "wav", "pcm_s16le"))
        rows.append({"audio": clip.name, "text": f"the a b {number}", "language": "en"})
    task = directory / "talk.jsonl"
    task.write_text("\n".join(map(json.dumps, [*rows, {"audio": "gone.wav", "text": "a"}])))
    return task


def test_a_search_by_transcription_errors_reads_sounds_and_its_plans_transcribe(
    home: Path, seeing_checkpoint: Path, tmp_path: Path
) -> None:
    task, plans, store = spoken_task(tmp_path, 12), tmp_path / "plans.json", tmp_path / "s.sqlite"
    asked = ("-t", task, "--max-tokens", "4", "--weights", "f32", "--store", store)
    searched = invoke(
        "search", seeing_checkpoint, *asked, "--budget", "10h", "--trials", "1", "-o", plans,
        home=home, COLUMNS="140",
    )  # fmt: skip
    assert searched.returncode == 0, searched.stderr
    assert "wer ↓" in searched.stdout and "gone.wav" in searched.stderr
    document = json.loads(plans.read_text())
    assert (document["task"]["metric"], document["task"]["unit"]) == ("wer", "%")
    assert document["task"]["rows_searched"] + document["task"]["rows_held_out"] == 12
    found = [one["measured"]["quality"]["value"] for one in document["plans"].values()]
    assert len(found) > 1 and all(value > 0 for value in found)
    # The sounds were heard, and heard once: `eval` finds every answer of the search in the store.
    known = kept_rows(store)
    evaluated = invoke("eval", seeing_checkpoint, *asked, "-o", tmp_path / "eval.json", home=home)
    assert evaluated.returncode == 0, evaluated.stderr
    assert kept_rows(store) == known
    size = f"{plans}:{next(iter(document['plans']))}"
    said = invoke("transcribe", tmp_path / "0.wav", "-m", seeing_checkpoint, "--weights", "f32",
                  "--size", size, home=home)  # fmt: skip
    assert said.returncode == 0, said.stderr


def test_a_search_with_sounds_that_cannot_be_heard_says_why(
    home: Path, seeing_checkpoint: Path, tmp_path: Path
) -> None:
    task = spoken_task(tmp_path, 8, seconds=0.001)
    done = invoke("search", seeing_checkpoint, "-t", task, "--weights", "f32", home=home)
    assert done.returncode == 1
    assert "0 rows to search with" in done.stderr and "rows are left out: talk" in done.stderr
