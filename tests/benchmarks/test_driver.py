"""Interleaved rounds, with contenders that need no engine."""

from __future__ import annotations

from typing import cast

import pytest
from benchmarks.bandwidth import Probe
from benchmarks.case import Case, Options, Result
from benchmarks.contenders import llama_cpp, llama_cpp_mix
from benchmarks.driver import Refused, Worker, interleave

from benchmarks import runner

CASE = Case("prefill", "e2b", prompt=16)


class Still:
    def measure(self) -> float:
        return 30.0


class Pretender:
    """Answers with its own name's length; refuses from a round on."""

    def __init__(self, name: str, log: list[str], refuses_from: int = 99) -> None:
        self.name, self.log, self.left = name, log, refuses_from

    def run(self, case: Case) -> Result:
        if self.left == 0:
            raise Refused("no memory")
        self.left -= 1
        self.log.append(self.name)
        return Result(1.0, case.prompt)


def rounds(
    *workers: Pretender, count: int, most: dict[str, int]
) -> tuple[list[int], dict[str, str]]:
    dropped: dict[str, str] = {}
    ours = cast(list[Worker], list(workers))
    found = list(interleave(ours, CASE, count, cast(Probe, Still()), most, dropped))
    return [one.round for one in found], dropped


def test_rounds_alternate_and_slow_contenders_stop_early() -> None:
    log: list[str] = []
    numbers, dropped = rounds(Pretender("a", log), Pretender("b", log), count=3, most={"b": 1})
    assert log == ["a", "b", "a", "b", "a", "a"]
    assert numbers == [0, 0, 1, 1, 2, 3]
    assert dropped == {}


def test_a_contender_that_refuses_is_asked_once_and_named() -> None:
    log: list[str] = []
    _, dropped = rounds(Pretender("a", log), Pretender("b", log, 1), count=2, most={})
    assert log == ["a", "b", "a", "a"]
    assert dropped == {"b": "no memory"}


def test_an_interrupt_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Pretender):
        def run(self, case: Case) -> Result:
            if self.left == 0:
                raise KeyboardInterrupt
            return super().run(case)

        def close(self) -> None:
            pass

    monkeypatch.setattr(runner, "Worker", lambda name, options: Interrupted(name, [], 2))
    cases = [CASE, Case("prefill", "e4b", prompt=16)]
    (kept,) = runner.run_cases(
        cases, ["a"], Options(models="", rounds=3), False, {}, cast(Probe, Still())
    )
    assert kept["title"] == CASE.title
    assert isinstance(kept["measurements"], list)
    assert len(kept["measurements"]) == 2


@pytest.mark.parametrize(
    ("module", "file"), [(llama_cpp, "e2b-q4_0.gguf"), (llama_cpp_mix, "e2b-q4_0-mix.gguf")]
)
def test_llama_bench_is_asked_for_one_test_a_round(
    module: object, file: str, tmp_path: object
) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    for name in (file, "llama-bench"):
        (folder / name).touch()
    options = Options(models=str(folder), threads=3, llama=str(folder))
    assert module.available(options) == (True, "")  # type: ignore[attr-defined]
    state = module.load(options)  # type: ignore[attr-defined]
    words = llama_cpp.command(state, Case("decode", "e2b", generate=64, context=512), 3)
    assert words[1:5] == ["-m", str(folder / file), "-t", "3"]
    text = " ".join(words)
    assert "-r 1 -p 0 -n 64,64,64 -d 512" in text
    start = " ".join(llama_cpp.command(state, Case("start", "e2b", prompt=16), 1))
    assert "-p 16 -n 0 --no-warmup" in start
    assert "--delay" not in start
