"""Results are found again, survive a killed process, and no other file is mistaken for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from matryo.errors import InputError
from matryo.evaluate.store import Store, name_of_plan
from matryo.plan import Plan

PLAN = Plan((0, 1), (32, 64), 1)


def test_a_result_is_found_by_what_computed_it(tmp_path: Path) -> None:
    with Store(tmp_path / "new" / "s.sqlite") as store:
        store.put("a", "1", {"logprob": [-1.25], "text": "é\u2028"})
        store.put("b", "1", {"x": 1})
    with Store(tmp_path / "new" / "s.sqlite") as store:
        assert store.known("a", ["0", "1"]) == {"1": {"logprob": [-1.25], "text": "é\u2028"}}
        assert store.known("c", ["1"]) == {}
        many = [str(number) for number in range(1200)]
        for key in many:
            store.put("m", key, {})
        assert len(store.known("m", many)) == 1200


def test_names_differ_with_weights_cache_and_plan() -> None:
    other = Plan((0, 1), (32, 32), 1)
    names = {
        name_of_plan({"checkpoint": "x", "weights": "q8"}, "bf16", PLAN),
        name_of_plan({"checkpoint": "x", "weights": "q4"}, "bf16", PLAN),
        name_of_plan({"checkpoint": "y", "weights": "q8"}, "bf16", PLAN),
        name_of_plan({"checkpoint": "x", "weights": "q8"}, "int8", PLAN),
        name_of_plan({"checkpoint": "x", "weights": "q8"}, "bf16", other),
        name_of_plan({"checkpoint": "x", "weights": "q8"}, "bf16", PLAN, "speed"),
    }
    assert len(names) == 6


def test_what_was_committed_survives_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from matryo.evaluate.store import Store\n"
        "store = Store(Path(sys.argv[1])); store.put('a', '1', {'x': 1}); store.commit()\n"
        "store.put('a', '2', {'x': 2}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    file = tmp_path / "s.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], env=dict(os.environ), timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    with Store(file) as store:
        assert store.known("a", ["1", "2"]) == {"1": {"x": 1}}


def test_another_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but long enough to be looked at" * 50)
    before = file.read_bytes()
    with pytest.raises(InputError, match="cannot be used to keep results"):
        Store(file)
    assert file.read_bytes() == before
    with pytest.raises(InputError, match="cannot be used to keep results"):
        Store(tmp_path)
