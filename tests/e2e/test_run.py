"""`matryo run`: the answer and nothing else on stdout, JSON, stdin, sizes, and how it ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.program import COMMAND, Terminal, environment, invoke, matryo

SHORT = ("--seed", "3", "-n", "16")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(home: Path, packed: Path) -> Run:
    """`matryo run` of the packed tiny model."""

    def run(*arguments: str | Path, stdin: str | bytes = b"") -> subprocess.CompletedProcess[str]:
        return invoke("run", "-m", packed, *arguments, home=home, stdin=stdin)

    return run


def summary(run: Run, *arguments: str | Path, stdin: str | bytes = b"") -> dict[str, Any]:
    """The last JSON line of a short run."""
    done = run(*arguments, *SHORT, "--json", stdin=stdin)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(last, dict)
    return last


def test_the_answer_is_all_there_is(run: Run, home: Path, packed: Path) -> None:
    done = matryo("run", "-m", packed, "the a", *SHORT, home=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run("the a", *SHORT).stdout
    assert done.stdout.strip()
    assert done.stdout.endswith("\n")


def test_the_same_seed_gives_the_same_answer(run: Run) -> None:
    first, second = (run("the a", *SHORT) for _ in range(2))
    assert first.stdout == second.stdout
    assert run("the a", "--seed", "4", "-n", "16").stdout != first.stdout


def test_json_lines_add_up_to_the_summary_and_to_the_text(run: Run) -> None:
    plain, done = run("the a", *SHORT), run("the a", *SHORT, "--json")
    *pieces, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert {piece["event"] for piece in pieces} == {"text"}
    assert end["event"] == "end"
    assert "".join(piece["text"] for piece in pieces) == end["text"]
    assert plain.stdout.rstrip("\n") == end["text"].rstrip("\n")
    assert end["tokens"] <= 16
    assert end["finish_reason"] in ("stop", "length")
    assert done.stderr == ""


def test_stdin_composes_with_the_prompt(run: Run) -> None:
    alone = summary(run, "the a")
    both = summary(run, "the a", stdin="b the b")
    piped = summary(run, "-", stdin="the a\n")
    nothing = summary(run, stdin="the a")
    assert alone["text"] == piped["text"] == nothing["text"]
    assert both["prompt_tokens"] > alone["prompt_tokens"]


def test_a_prompt_may_hold_bytes_that_are_no_text(run: Run) -> None:
    assert summary(run, "-", stdin=b"caf\xe9")["tokens"] > 0
    assert summary(run, "caf\udce9")["tokens"] > 0  # the same byte, as Python passes an argument on


def test_raw_leaves_the_chat_template_out(run: Run) -> None:
    assert summary(run, "a", "--raw")["prompt_tokens"] < summary(run, "a")["prompt_tokens"]


def test_system_comes_before_the_prompt(run: Run) -> None:
    plain, instructed = summary(run, "a"), summary(run, "a", "--system", "b")
    assert instructed["prompt_tokens"] > plain["prompt_tokens"]


def test_every_size_answers_and_says_its_name(run: Run) -> None:
    sizes = ("small", "medium", "large", "e2b", "e4b")
    assert [summary(run, "the", "--size", size)["size"] for size in sizes] == list(sizes)


def test_sizes_differ_and_the_largest_is_the_default(run: Run) -> None:
    answers = {
        size: summary(run, "the", "--size", size)["text"] for size in ("small", "medium", "large")
    }
    assert len(set(answers.values())) == 3
    assert summary(run, "the")["text"] == answers["large"]


def test_a_plan_from_a_file_or_a_table_is_the_plan_by_name(
    run: Run, home: Path, packed: Path, tmp_path: Path
) -> None:
    plan = json.loads(invoke("info", packed, "--json", home=home).stdout)["plans"]["small"]["plan"]
    as_json, as_table = tmp_path / "mine.json", tmp_path / "table.csv"
    as_json.write_text(json.dumps(plan), encoding="utf-8")
    skipped = [layer for layer in range(15) if layer not in plan["layers"]]
    header = "name,# Layers,FFN Hidden Dims,Layers Skipped"
    row = f'mine,10,"{plan["ffn_width"]}","{skipped}"'
    as_table.write_text(f"{header}\n{row}\n", encoding="utf-8")
    named = run("the", *SHORT, "--size", "small").stdout
    assert run("the", *SHORT, "--size", as_json).stdout == named
    assert run("the", *SHORT, "--size", f"{as_table}:mine").stdout == named


def test_a_hugging_face_directory_answers_as_its_packed_form(
    run: Run, home: Path, checkpoint: Path
) -> None:
    done = invoke("run", "-m", checkpoint, "--weights", "f32", "the", *SHORT, home=home)
    assert (done.stdout, done.stderr) == (run("the", *SHORT).stdout, "")


def test_a_stop_string_is_not_printed(run: Run) -> None:
    text = run("the", *SHORT).stdout
    word = text.split()[1][:3]  # a part of a token, behind the first
    stopped = run("the", *SHORT, "--stop", word).stdout
    assert stopped.strip() == text[: text.index(word)].strip()


def test_a_full_context_ends_the_answer(run: Run) -> None:
    end = json.loads(run("the", "--seed", "1", "-n", "4000", "--json").stdout.splitlines()[-1])
    assert end["finish_reason"] in ("context", "stop")
    assert end["prompt_tokens"] + end["tokens"] <= 257


BAD_PLANS = {
    "width.json": ('{"ffn_width": 100}', "multiple of 32"),
    "owner.json": ('{"layers": [0, 1, 2, 3, 5, 6]}', "layer 4 cannot be skipped"),
    "order.json": ('{"layers": [1, 0]}', "ascending"),
    "wide.json": ('{"ffn_width": 4096}', "exceeds"),
    "key.json": ('{"width": 96}', "layers"),
    "broken.json": ("{", "not a JSON document"),
}


@pytest.mark.parametrize("name", sorted(BAD_PLANS))
def test_a_bad_plan_is_refused_with_its_reason(run: Run, tmp_path: Path, name: str) -> None:
    text, reason = BAD_PLANS[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    done = run("x", "--size", tmp_path / name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["x", "--size", "enormous"], 1, "error: no plan named 'enormous'"),
        (["x", "-m", "no/such/model"], 1, "error: "),
        (["x", "-m", "/dev/null"], 1, "error: "),
        (["x", "--size", "no.json"], 1, "error: cannot read no.json"),
        (["x", "--size", "no.csv:x"], 1, "error: cannot read no.csv"),
        (["x", "--stop", ""], 1, "error: "),
        (["a " * 300], 1, "error: the context holds 256 tokens"),
        (["x", "-n", "0"], 2, "Usage: "),
        (["x", "--weights", "q3"], 2, "Usage: "),
        (["x", "--raw", "--system", "y"], 2, "Usage: "),
        ([], 2, "Usage: "),
    ],
)
def test_a_mistake_is_one_message(run: Run, arguments: list[str], code: int, message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)
    assert code == 2 or len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_debug_shows_where_it_happened(home: Path, packed: Path) -> None:
    plain = matryo("run", "-m", packed, "x", "--size", "enormous", home=home)
    assert (plain.returncode, len(plain.stderr.splitlines())) == (1, 1)
    done = matryo("run", "-m", packed, "x", "--size", "enormous", "--debug", home=home)
    assert "Traceback" in done.stderr
    assert done.returncode == 1


def test_a_name_with_escape_sequences_is_shown_harmless(run: Run) -> None:
    done = run("x", "-m", "a\x1b[2Jb")
    assert "\x1b" not in done.stderr
    assert "\\x1b[2J" in done.stderr


def test_a_closed_pipe_is_quiet(home: Path, packed: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", "-m", str(packed), "the", "-n", "240", "--seed", "1", "--json"],
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


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_a_plain_locale_is_no_obstacle(home: Path, packed: Path, locale: str) -> None:
    done = matryo("run", "-m", packed, "é 🌍", *SHORT, home=home, LC_ALL=locale, LANG="")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_encoding_without_the_characters_shows_their_codes(home: Path, packed: Path) -> None:
    done = matryo(
        "run", "-m", packed, "a", "-n", "200", "--seed", "5", home=home, PYTHONIOENCODING="ascii"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


def test_a_terminal_shows_the_live_line_and_ctrl_c_ends_the_program(
    home: Path, endless: Path
) -> None:
    with Terminal("run", "-m", endless, "the", "-n", "30000", home=home) as terminal:
        terminal.expect("tokens/s")
        terminal.type("\x03")
        assert terminal.wait() == 130
    assert "resident" in terminal.screen
    assert "Traceback" not in terminal.screen


def test_the_live_line_is_erased(home: Path, packed: Path) -> None:
    with Terminal("run", "-m", packed, "the", "-n", "24", "--seed", "1", home=home) as terminal:
        assert terminal.wait() == 0
    *_, answer, remark = terminal.screen.rstrip().splitlines()
    assert "tokens/s" in remark
    assert "tokens/s" not in answer.rpartition("\x1b[J")[2]


def test_a_policy_chooses_the_size_and_says_why(run: Run, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    done = run("the a", *SHORT, "--duty", "0.9", "--trace", trace, "--json")
    first, *_, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert first["event"] == "size" and first["reason"] == "the machine may work 90% of the time"
    assert end["event"] == "end" and end["size"] == first["size"]
    head, *lines = trace.read_text(encoding="utf-8").splitlines()
    assert json.loads(head)["policy"]["duty"] == 0.9
    assert json.loads(lines[0])["reason"] == first["reason"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--policy", "latency"), "needs a target"),
        (("--policy", "latency", "--target-ms", "5", "--memory", "2GB"), "'auto'"),
        (("--memory", "1MB"), "the nearest is"),
        (("--memory", "2XB"), "no amount of memory"),
    ],
)
def test_budgets_that_cannot_be_kept_are_refused(
    run: Run, options: tuple[str, ...], said: str
) -> None:
    done = run("the a", *options)
    assert done.returncode == 1 and said in done.stderr and done.stdout == ""
