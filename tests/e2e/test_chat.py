"""`matryo chat` on a terminal: history, commands, Ctrl-C, Ctrl-D; and with pipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.program import Terminal, invoke, matryo

PROMPT = "> "
GREEDY = ("--temperature", "0", "-n", "12")


def ask(terminal: Terminal, text: str) -> str:
    """Type a line; return what came before the next prompt."""
    start = len(terminal.screen)
    terminal.type(text + "\n")
    echoed = terminal.expect(text, after=start)
    end = terminal.expect("\n" + PROMPT, after=echoed)
    return terminal.screen[echoed:end]


def test_a_conversation_with_commands(home: Path, packed: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.session"
    with Terminal("chat", "-m", packed, *GREEDY, home=home) as terminal:
        terminal.expect(PROMPT)
        first = ask(terminal, "the a b")
        assert "tokens/s" in first
        assert "small" in ask(terminal, "/size small")
        assert "no plan named" in ask(terminal, "/size enormous")
        assert "small" in ask(terminal, "a the")
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


def test_undo_takes_back_the_last_exchange(home: Path, packed: Path) -> None:
    with Terminal("chat", "-m", packed, *GREEDY, home=home) as terminal:
        terminal.expect(PROMPT)
        first = answer_of(ask(terminal, "the a b"))
        ask(terminal, "/undo")
        again = answer_of(ask(terminal, "the a b"))
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert first == again


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation(home: Path, endless: Path) -> None:
    with Terminal("chat", "-m", endless, "-n", "30000", home=home) as terminal:
        start = terminal.expect(PROMPT)
        terminal.type("the the\n")
        start = terminal.expect("tokens/s", after=start)  # the status line: it is under way
        terminal.type("\x03")
        start = terminal.expect("interrupted", after=start)
        terminal.expect("\n" + PROMPT, after=start)
        assert "2 messages" in ask(terminal, "/stats")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert "Traceback" not in terminal.screen


def test_ctrl_c_at_the_prompt_does_not_leave(home: Path, packed: Path) -> None:
    with Terminal("chat", "-m", packed, *GREEDY, home=home) as terminal:
        at = terminal.expect(PROMPT)
        terminal.type("half a question")
        at = terminal.expect("half a question", after=at)  # ^C throws away what was not read yet
        terminal.interrupt(PROMPT, after=at)
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_lines_are_remembered(home: Path, packed: Path) -> None:
    with Terminal("chat", "-m", packed, *GREEDY, home=home) as terminal:
        terminal.expect(PROMPT)
        ask(terminal, "the a b")
        terminal.type("/exit\n")
        assert terminal.wait() == 0
    assert "the a b" in (home / "history").read_text(encoding="utf-8")


def test_with_pipes_only_answers_are_on_stdout(home: Path, packed: Path) -> None:
    done = invoke("chat", "-m", packed, *GREEDY, home=home, stdin="the a b\n/size small\nb a\n")
    assert done.returncode == 0
    assert done.stderr.startswith("size small")
    assert PROMPT not in done.stdout
    assert len(done.stdout.strip().splitlines()) >= 2


def test_json_gives_a_summary_for_every_answer(home: Path, packed: Path) -> None:
    done = matryo("chat", "-m", packed, *GREEDY, "--json", home=home, stdin="the a b\nb a\n")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines].count("end") == 2
    assert done.returncode == 0


def answer_of(screen: str) -> str:
    """The first line of an answer, without the status line that may be drawn in between."""
    return screen.split("\x1b")[0].strip().splitlines()[0]


def summaries(stdout: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, stdout.splitlines()) if line["event"] == "end"]


def test_the_conversation_is_not_computed_again(home: Path, packed: Path) -> None:
    done = invoke("chat", "-m", packed, *GREEDY, "--json", home=home, stdin="the a b\nb a\n")
    first, second = summaries(done.stdout)
    assert first["cached_tokens"] == 0
    assert second["cached_tokens"] >= first["prompt_tokens"]
    assert second["prompt_tokens"] > second["cached_tokens"]


def test_a_size_chosen_in_the_middle_answers_from_there(home: Path, packed: Path) -> None:
    lines = "the a b\n/size small\nb a\n/size large\na\n"
    done = invoke("chat", "-m", packed, *GREEDY, "--json", home=home, stdin=lines)
    assert (done.returncode, [end["size"] for end in summaries(done.stdout)]) == (
        0,
        ["large", "small", "large"],
    )


def test_a_saved_conversation_goes_on_in_another_process(
    home: Path, packed: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "talk.session"
    whole = invoke("chat", "-m", packed, *GREEDY, "--json", home=home, stdin="the a b\nb a\n")
    invoke("chat", "-m", packed, *GREEDY, home=home, stdin=f"the a b\n/save {saved}\n")
    rest = invoke("chat", "-m", packed, *GREEDY, "--json", home=home, stdin=f"/load {saved}\nb a\n")
    (_, second), (again,) = summaries(whole.stdout), summaries(rest.stdout)
    assert again["text"] == second["text"]


def test_exit_ends_a_pipe_too(home: Path, packed: Path) -> None:
    done = invoke("chat", "-m", packed, *GREEDY, home=home, stdin="/exit\nnever asked\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "line", ["/nonsense", "/size enormous", "/load nothing.session", "/save", "/undo"]
)
def test_with_pipes_the_first_mistake_ends_everything(home: Path, packed: Path, line: str) -> None:
    done = invoke("chat", "-m", packed, *GREEDY, home=home, stdin=f"{line}\nnever asked\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_session_of_other_weights_is_refused(
    home: Path, packed: Path, checkpoint: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "talk.session"
    invoke("chat", "-m", packed, *GREEDY, home=home, stdin=f"the a b\n/save {saved}\n")
    done = invoke("chat", "-m", checkpoint, "--weights", "q8", home=home, stdin=f"/load {saved}\n")
    assert done.returncode == 1
    assert "other weights" in done.stderr


def test_bytes_that_are_no_text_do_not_end_a_conversation(home: Path, packed: Path) -> None:
    done = invoke("chat", "-m", packed, *GREEDY, home=home, stdin=b"caf\xe9\n")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_on_a_terminal_keeps_the_conversation(home: Path, packed: Path) -> None:
    with Terminal("chat", "-m", packed, *GREEDY, home=home) as terminal:
        terminal.expect(PROMPT)
        ask(terminal, "the a b")
        assert "the context holds 256 tokens" in ask(terminal, "a " * 300)
        assert "2 messages" in ask(terminal, "/stats")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_a_line_may_go_on_in_the_next(home: Path, packed: Path) -> None:
    with Terminal("chat", "-m", packed, *GREEDY, home=home) as terminal:
        at = terminal.expect(PROMPT)
        terminal.type("the a\\\n")
        terminal.expect("… ", after=at)
        ask(terminal, "b")
        assert "2 messages" in ask(terminal, "/stats")
        terminal.type("\x04")
        assert terminal.wait() == 0
