"""`matryo run`: the answer and nothing else on stdout, JSON, stdin, sizes, and how it ends."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from e2e.program import COMMAND, Terminal, environment, matryo

SHORT = ("--seed", "3", "-n", "16")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def summary(*arguments: str, home: Path, stdin: str = "") -> dict[str, object]:
    done = matryo("run", *arguments, *SHORT, "--json", home=home, stdin=stdin)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(last, dict)
    return last


def test_the_answer_is_all_there_is(home: Path) -> None:
    done = matryo("run", "What is a house?", *SHORT, home=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
    assert done.stdout.endswith("\n")


def test_the_same_seed_gives_the_same_answer(home: Path) -> None:
    first, second = (matryo("run", "What is a house?", *SHORT, home=home) for _ in range(2))
    assert first.stdout == second.stdout
    other = matryo("run", "What is a house?", "--seed", "4", "-n", "16", home=home)
    assert other.stdout != first.stdout


def test_json_lines_add_up_to_the_summary(home: Path) -> None:
    done = matryo("run", "What is a house?", *SHORT, "--json", home=home)
    *pieces, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert {piece["event"] for piece in pieces} == {"text"}
    assert end["event"] == "end"
    assert "".join(piece["text"] for piece in pieces) == end["text"]
    assert end["tokens"] <= 16
    assert end["finish_reason"] in ("stop", "length")
    assert done.stderr == ""


def test_stdin_composes_with_the_prompt(home: Path) -> None:
    alone = summary("What is a house?", home=home)
    both = summary("What is a house?", home=home, stdin="It has a roof and four walls.")
    piped = summary("-", home=home, stdin="What is a house?")
    counts = [run["prompt_tokens"] for run in (alone, both, piped)]
    assert counts[0] == counts[2]
    assert isinstance(counts[0], int) and isinstance(counts[1], int) and counts[1] > counts[0]


def test_raw_leaves_the_chat_template_out(home: Path) -> None:
    chat, raw = summary("A house is", home=home), summary("A house is", "--raw", home=home)
    assert isinstance(chat["prompt_tokens"], int) and isinstance(raw["prompt_tokens"], int)
    assert raw["prompt_tokens"] < chat["prompt_tokens"]


def test_every_size_answers(home: Path) -> None:
    small, large = (summary("What is a house?", "--size", s, home=home) for s in ("small", "large"))
    assert (small["size"], large["size"]) == ("small", "large")


def test_a_plan_from_a_file_is_the_plan_by_name(home: Path, tmp_path: Path) -> None:
    info = json.loads(matryo("info", "--json", home=home).stdout)
    plan = tmp_path / "mine.json"
    plan.write_text(json.dumps(info["plans"]["small"]["plan"]), encoding="utf-8")
    named = matryo("run", "What is a house?", *SHORT, "--size", "small", home=home)
    filed = matryo("run", "What is a house?", *SHORT, "--size", str(plan), home=home)
    assert (filed.stdout, filed.returncode) == (named.stdout, 0)


def test_a_stop_string_is_not_printed(home: Path) -> None:
    text = matryo("run", "What is a house?", *SHORT, home=home).stdout
    word = text.split()[1]
    stopped = matryo("run", "What is a house?", *SHORT, "--stop", word, home=home).stdout
    assert stopped.strip() == text[: text.index(word)].strip()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["x", "--size", "enormous"], 1, "error: no plan named 'enormous'"),
        (["x", "-m", "no/such/model"], 1, "error: "),
        (["x", "--size", "no.json"], 1, "error: cannot read no.json"),
        (["x", "-n", "0"], 2, "Usage: "),
        (["x", "--raw", "--system", "y"], 2, "Usage: "),
        ([], 2, "Usage: "),
    ],
)
def test_a_mistake_is_one_message(
    home: Path, arguments: list[str], code: int, message: str
) -> None:
    done = matryo("run", *arguments, home=home)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)
    assert code == 2 or len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_debug_shows_where_it_happened(home: Path) -> None:
    done = matryo("run", "x", "--size", "enormous", "--debug", home=home)
    assert "Traceback" in done.stderr
    assert done.returncode == 1


def test_a_name_with_escape_sequences_is_shown_harmless(home: Path) -> None:
    done = matryo("run", "x", "-m", "a\x1b[2Jb", home=home)
    assert "\x1b" not in done.stderr
    assert "\\x1b[2J" in done.stderr


def test_a_closed_pipe_is_quiet(home: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", "Tell me a story.", "-n", "400", "--seed", "1"],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


def test_a_terminal_shows_the_live_line_and_ctrl_c_ends_the_program(home: Path) -> None:
    with Terminal("run", "Tell me a story.", "-n", "900", "--seed", "1", home=home) as terminal:
        terminal.expect("tokens/s")
        terminal.type("\x03")
        assert terminal.wait() == 130
    assert "Traceback" not in terminal.screen
