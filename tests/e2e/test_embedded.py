"""The model that comes with the package: real text, at two sizes, with nothing but the program."""

from __future__ import annotations

import json
import re
from pathlib import Path

from e2e.program import Terminal, matryo

WORDS = re.compile(r"[a-z]{2,}")


def test_an_answer_is_made_of_words(home: Path) -> None:
    done = matryo("run", "What is a house?", "--temperature", "0", "-n", "24", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(WORDS.findall(done.stdout)) >= 3


def test_the_demo_answers_at_two_sizes_of_one_file(home: Path) -> None:
    done = matryo("demo", "--seed", "1", "-n", "16", home=home, COLUMNS="100")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) >= 2
    assert "[small]" in done.stderr and "[large]" in done.stderr
    assert "one set of weights, two models" in done.stderr
    assert "Resident memory" in done.stderr


def test_the_demo_as_json(home: Path) -> None:
    done = matryo("demo", "--seed", "1", "-n", "8", "--json", home=home)
    ends = [line for line in map(json.loads, done.stdout.splitlines()) if line["event"] == "end"]
    assert (done.returncode, done.stderr) == (0, "")
    assert [end["size"] for end in ends] == ["small", "large"]


def test_info_without_a_path_is_about_it(home: Path) -> None:
    document = json.loads(matryo("info", "--json", home=home).stdout)
    assert document["form"] == "packed"
    assert set(document["plans"]) >= {"small", "medium", "large"}
    assert sum(file["bytes"] for file in document["files"]) < 10e6


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
