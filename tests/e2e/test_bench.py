"""`matryo bench`: figures for every size that could have been measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.program import Terminal, invoke, matryo

QUICK = ("--prompt-tokens", "24", "-n", "8", "--rounds", "2")


def test_json_has_every_size_and_every_round(home: Path, packed: Path) -> None:
    done = matryo("bench", packed, *QUICK, "--json", home=home)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report["sizes"]) == ["small", "medium", "large"] or len(report["sizes"]) == 4
    assert report["rounds"] == 2
    assert report["threads"] == 1
    for figures in report["sizes"].values():
        for name in ("prefill_tokens_per_s", "decode_tokens_per_s", "share_of_read_bandwidth"):
            spread = figures[name]
            assert len(spread["rounds"]) == 2
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    assert report["read_bytes_per_s"]["median"] > 1e8
    assert 0 <= report["switch"]["seconds"]["median"] < 1
    assert report["ledger"]["resident_bytes"] > 1e6


def test_chosen_sizes_alone_are_measured_smallest_first(home: Path, packed: Path) -> None:
    done = invoke(
        "bench", packed, *QUICK, "--size", "large", "--size", "small", "--json", home=home
    )
    assert list(json.loads(done.stdout)["sizes"]) == ["small", "large"]
    alone = invoke("bench", packed, *QUICK, "--size", "small", "--json", home=home)
    assert json.loads(alone.stdout)["switch"] is None


def test_time_ends_the_rounds_but_one_is_measured(home: Path, packed: Path) -> None:
    quick = ("--prompt-tokens", "8", "-n", "2", "--rounds", "1000", "--seconds", "0", "--json")
    assert json.loads(invoke("bench", packed, *quick, home=home).stdout)["rounds"] == 1


def test_the_table_says_what_was_measured_and_what_was_counted(home: Path, packed: Path) -> None:
    done = invoke("bench", packed, *QUICK, home=home, COLUMNS="120")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "of 2 rounds" in text
    assert "counted from shapes" in text
    assert "Read bandwidth, measured" in text
    assert "the whole process" in text


def test_the_prompt_fits_a_short_context_by_itself(home: Path, packed: Path) -> None:
    done = invoke("bench", packed, "--size", "small", "--rounds", "1", "--json", home=home)
    assert json.loads(done.stdout)["prompt_tokens"] == 256 - 64 - 1


def test_too_long_a_prompt_is_refused(home: Path, packed: Path) -> None:
    done = invoke("bench", packed, "--prompt-tokens", "250", home=home)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: 315 tokens do not fit into the context of 256")


def test_ctrl_c_ends_it(home: Path, packed: Path) -> None:
    with Terminal("bench", packed, *QUICK, "--rounds", "1000000", home=home) as terminal:
        terminal.expect("Measuring")
        terminal.type("\x03")
        assert terminal.wait() == 130
    assert "Traceback" not in terminal.screen


@pytest.mark.parametrize("arguments", [("--rounds", "0"), ("-n", "0"), ("--seconds", "-1")])
def test_impossible_tasks_are_usage(home: Path, packed: Path, arguments: tuple[str, str]) -> None:
    assert invoke("bench", packed, *arguments, home=home).returncode == 2
