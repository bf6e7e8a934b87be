"""`matryo chat` on a terminal: history, commands, Ctrl-C, Ctrl-D; and with pipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.program import Terminal, matryo

PROMPT = "> "
GREEDY = ("--temperature", "0", "-n", "12")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def ask(terminal: Terminal, text: str) -> str:
    """Type a line; return what came before the next prompt."""
    start = len(terminal.screen)
    terminal.type(text + "\n")
    echoed = terminal.expect(text, after=start)
    end = terminal.expect("\n" + PROMPT, after=echoed)
    return terminal.screen[echoed:end]


def test_a_conversation_with_commands(home: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.session"
    with Terminal("chat", *GREEDY, home=home) as terminal:
        terminal.expect(PROMPT)
        first = ask(terminal, "What is a house?")
        assert "tokens/s" in first
        assert "small" in ask(terminal, "/size small")
        assert "no plan named" in ask(terminal, "/size enormous")
        assert "small" in ask(terminal, "What is a tree?")
        assert "tokens" in ask(terminal, "/stats")
        assert str(saved) in ask(terminal, f"/save {saved}").replace("\r\n", "")
        ask(terminal, "/undo")
        ask(terminal, "/reset")
        ask(terminal, f"/load {saved}")
        assert "/undo" in ask(terminal, "/help")
        assert "unknown command" in ask(terminal, "/nonsense")
        terminal.type("/exit\n")
        assert terminal.wait() == 0
    assert saved.is_file()
    assert "Traceback" not in terminal.screen


def test_undo_takes_back_the_last_exchange(home: Path) -> None:
    with Terminal("chat", *GREEDY, home=home) as terminal:
        terminal.expect(PROMPT)
        first = answer_of(ask(terminal, "What is a house?"))
        ask(terminal, "/undo")
        again = answer_of(ask(terminal, "What is a house?"))
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert first == again


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation(home: Path) -> None:
    with Terminal("chat", "--temperature", "1.2", "-n", "900", home=home) as terminal:
        start = terminal.expect(PROMPT)
        terminal.type("Tell me a long story.\n")
        terminal.expect("tokens/s", after=start)  # the status line: the answer is under way
        terminal.type("\x03")
        terminal.expect("interrupted", after=start)
        terminal.expect("\n" + PROMPT, after=start)
        assert "2 messages" in ask(terminal, "/stats")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert "Traceback" not in terminal.screen


def test_ctrl_c_at_the_prompt_does_not_leave(home: Path) -> None:
    with Terminal("chat", *GREEDY, home=home) as terminal:
        at = terminal.expect(PROMPT)
        terminal.type("half a question\x03")
        terminal.expect(PROMPT, after=terminal.expect("half a question", after=at))
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_lines_are_remembered(home: Path) -> None:
    with Terminal("chat", *GREEDY, home=home) as terminal:
        terminal.expect(PROMPT)
        ask(terminal, "What is a house?")
        terminal.type("/exit\n")
        assert terminal.wait() == 0
    assert "What is a house?" in (home / "history").read_text(encoding="utf-8")


def test_with_pipes_only_answers_are_on_stdout(home: Path) -> None:
    done = matryo("chat", *GREEDY, home=home, stdin="What is a house?\n/size small\nAnd a tree?\n")
    assert done.returncode == 0
    assert done.stderr.startswith("size small")
    assert PROMPT not in done.stdout
    assert len(done.stdout.strip().splitlines()) >= 2


def test_json_gives_a_summary_for_every_answer(home: Path) -> None:
    done = matryo("chat", *GREEDY, "--json", home=home, stdin="What is a house?\nAnd a tree?\n")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines].count("end") == 2
    assert done.returncode == 0


def answer_of(screen: str) -> str:
    """The first line of an answer, without the status line that may be drawn in between."""
    return screen.split("\x1b")[0].strip().splitlines()[0]
