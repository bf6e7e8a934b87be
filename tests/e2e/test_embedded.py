"""The model that comes with the package sees, hears and writes, with nothing but the program."""

from __future__ import annotations

import json
import re
from pathlib import Path

from e2e.program import Terminal, matryo
from matryo.cli.showcase import questions
from matryo.evaluate.metrics import normalised

WORDS = re.compile(r"[a-z]{2,}")


def test_an_answer_is_made_of_words(home: Path) -> None:
    done = matryo("run", "What is a house?", "--temperature", "0", "-n", "24", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(WORDS.findall(done.stdout)) >= 3


def test_the_demo_sees_hears_and_translates_at_two_sizes(home: Path) -> None:
    done = matryo("demo", home=home, COLUMNS="120")
    assert done.returncode == 0, done.stderr
    asked = questions()
    assert len(done.stdout.splitlines()) == 2 * len(asked)
    for question in asked:
        assert question.about in done.stderr and question.label in done.stderr
    assert "held out from training" in done.stderr
    assert re.search(r"^ *tiny +6 × 128 .* MB .*\d\.\d *$", done.stderr, re.MULTILINE)
    assert re.search(r"^ *large +8 × 512 .* MB .*\d\.\d *$", done.stderr, re.MULTILINE)


def test_the_demo_as_json(home: Path) -> None:
    done = matryo("demo", "--json", home=home)
    *answers, end = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (0, "")
    assert [one["size"] for one in answers] == ["tiny", "large"] * (len(answers) // 2)
    assert [one["section"] for one in answers[::2]] == [one.section for one in questions()]
    right = [normalised(one["text"]) == normalised(one["right"]) for one in answers[1::2]]
    assert sum(right) > len(right) / 2  # of the largest size
    small, large = end["sizes"]
    assert 0 < small["parameters"] < large["parameters"]
    assert 0 < small["weight_bytes"] < large["weight_bytes"]
    assert set(large["seconds_to_first_token"]) == {"picture", "speech", "phrase"}


def test_the_demo_answers_what_it_is_asked(home: Path) -> None:
    done = matryo("demo", "What is a tree?", "-n", "8", "--seed", "1", home=home)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert "What is a tree?" in done.stderr and "tiny" in done.stderr and "large" in done.stderr
    assert "held out" not in done.stderr  # nobody knows that of what the user asks


def test_info_without_a_path_is_about_it(home: Path) -> None:
    document = json.loads(matryo("info", "--json", home=home).stdout)
    assert document["form"] == "packed"
    assert set(document["plans"]) >= {"tiny", "small", "medium", "large"}
    assert {file["name"] for file in document["files"]} >= {"vision.safetensors"}
    assert sum(file["bytes"] for file in document["files"]) < 16e6


def test_a_chat_on_a_terminal(home: Path) -> None:
    with Terminal("chat", "--temperature", "0", "-n", "16", home=home) as terminal:
        at = terminal.expect("> ")
        terminal.type("What is a tree?\n")
        end = terminal.expect("resident", after=at)
        assert "large · " in terminal.screen[at:end]
        terminal.type("/size small\n")
        at = terminal.expect("size small;", after=end)
        terminal.type("What is a tree?\n")
        end = terminal.expect("resident", after=at)
        assert "small · " in terminal.screen[at:end]
        terminal.expect("\n> ", after=end)
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_nothing_is_written_but_the_history(home: Path) -> None:
    matryo("run", "Hello", "-n", "4", home=home)
    assert not home.exists()
