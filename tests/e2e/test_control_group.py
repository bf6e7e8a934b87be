"""`matryo run --policy memory` in a control group whose limit comes and goes.

The model is 57 MB at its largest and 9 at its smallest, wide enough to see in a process of Python.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from benchmarks.control_group import ControlGroup
from benchmarks.processes import drop_from_page_cache

from e2e.program import COMMAND, PATIENCE_S, environment, matryo
from helpers.files import hub_config, write_checkpoint, write_json
from helpers.random_weights import TEXT_VOCAB
from helpers.readable import make_readable
from matryo.elastic.policy import predicted_bytes
from matryo.elastic.trace import Decision, read_trace
from matryo.errors import MatryoError

T = TypeVar("T")


@pytest.fixture
def group() -> Iterator[ControlGroup]:
    if sys.platform != "linux":
        pytest.skip("control groups are a thing of Linux")
    try:
        made = ControlGroup()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield made
    made.close()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wide")
    config = hub_config(intermediate_size=8192, max_position_embeddings=32768)
    write_checkpoint(directory / "bare", config=config, plans=None)
    readable = make_readable(directory / "bare", directory / "readable", eos=(TEXT_VOCAB,))
    write_json(readable / "plans.json", {"small": {"ffn_width": 1024}, "large": {}})
    done = matryo("convert", readable, directory / "packed", "--weights", "f32",
                  home=directory / "home")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return directory / "packed"


class Answer:
    """A program that writes an answer; its events are read as they come.

    Whether there is text says nothing: a random model may stay with a token that has none.
    """

    def __init__(self, command: list[str], home: Path, trace: Path) -> None:
        self._trace, self._events = trace, list[dict[str, Any]]()
        self.program = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(home),
        )  # fmt: skip
        self._watchdog = threading.Timer(PATIENCE_S, self.program.kill)
        self._watchdog.start()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.program.stdout is not None
        for line in self.program.stdout:
            self._events.append(json.loads(line))

    def decisions(self, least: int = 1) -> list[Decision]:
        """All that there are, as soon as there are so many."""
        return self._soon(lambda: _at_least(least, self._decided()))

    def under(self, limit: int) -> list[Decision]:
        """Those that knew the limit, as soon as there are five and the last found less resident."""

        def known() -> list[Decision]:
            seen = [
                one for one in self._decided()
                if one.reading.memory_limit is not None and one.reading.memory_limit <= limit
            ]  # fmt: skip
            return seen if seen[4:] and seen[-1].reading.resident_bytes <= limit else []

        return self._soon(known)

    def change(self, to: str | None = None) -> dict[str, Any]:
        """The first change of size, or the first to this one."""
        return self._soon(
            lambda: [
                one for one in self._events
                if one["event"] == "size" and to in (None, one["size"])
            ]
        )[0]  # fmt: skip

    def stop(self) -> None:
        self._watchdog.cancel()
        self.program.kill()
        self._reader.join()
        self.program.communicate()

    def _decided(self) -> list[Decision]:
        try:
            return read_trace(self._trace)[1]
        except (MatryoError, OSError):  # not there yet
            return []

    def _soon(self, look: Callable[[], list[T]]) -> list[T]:
        """What `look` finds, once that is something. Fails if the program ends before."""
        while not (found := look()):
            if self.program.poll() is not None:
                assert self.program.stderr is not None
                raise AssertionError(f"the answer ended: {self.program.stderr.read()}")
            time.sleep(0.02)
        return found


def _at_least(number: int, found: list[T]) -> list[T]:
    return found if len(found) >= number else []


def test_the_size_follows_the_limit_of_a_control_group_and_nothing_is_killed(
    group: ControlGroup, wide: Path, tmp_path: Path
) -> None:
    drop_from_page_cache(wide)  # pages are charged to the group that reads them first
    trace = tmp_path / "trace.jsonl"
    command = group.command(
        *COMMAND, "run", "a b", "-m", wide, "--policy", "memory", "--trace", trace,
        "-n", "100000", "--json",
    )  # fmt: skip
    answer = Answer(command, tmp_path / "home", trace)
    try:
        decisions = answer.decisions(5)
        rules, _ = read_trace(trace)
        if decisions[-1].setting.level:
            pytest.skip("the machine has not enough memory left for the largest size")
        needed = [
            predicted_bytes(rules, n, decisions[-1].reading) for n in range(len(rules.levels))
        ]
        assert needed[0] - needed[-1] > 30_000_000
        limit = (needed[0] + round(needed[-1] / 0.95)) // 2

        group.limit(limit)
        assert "limit" in answer.change()["reason"]
        # The first reading that sees the limit decides, and what is resident keeps it soon after;
        # how soon depends on when the program gets a processor.
        seen = answer.under(limit)
        assert seen[0].setting.level > 0 and limit < needed[0]

        group.limit(None)
        answer.change("large")
        assert answer.program.poll() is None
        assert group.used()["killed"] == 0
    finally:
        answer.stop()
