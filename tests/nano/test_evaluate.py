"""What is measured of the embedded model: rows, figures, what it takes no model to reach."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts.nano import evaluate, page, tasks
from scripts.nano.corpus import finish
from scripts.nano.corpus.cldr import Concept
from scripts.nano.corpus.rows import chat, write
from scripts.nano.tasks import KEYWORDS, TASKS, Asked

import matryo
from matryo.evaluate.items import AnswerItem, prepare
from matryo.evaluate.store import Store


def asked(name: str) -> Asked:
    return next(task for task in TASKS if task.name == name)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = {
        "facts": [chat("sum", "en", f"What is {n} plus 1?", str(n + 1)) for n in range(5)]
        + [chat("plural", "es", "Plural de gato?", "gatos")],
        "translate": [
            chat("translate", to, f"Translate to {name}: uno due tre", right, source=source)
            for to, name, source, right in (
                ("en", "English", "it", "one two three"),
                ("es", "Spanish", "en", "uno dos tres"),
                ("fr", "French", "it", "un deux trois"),
            )
        ],
        "prose": [{"text": "aabb", "task": "prose", "lang": "en"}],
        "transcribe_kokoro": [chat("transcribe", "en", "Transcribe.", "one two", said="one two")],
    }
    for name, listed in rows.items():
        write(tmp_path / "heldout" / f"{name}.jsonl", listed)
    found = {
        f"heldout/{path.name}": finish.digest(path)
        for path in (tmp_path / "heldout").glob("*.jsonl")
    }
    monkeypatch.setattr(tasks, "expected", lambda: found)
    return tmp_path


def items(task: Asked, cache: Path) -> tuple[list[AnswerItem], list[tasks.Json]]:
    questions = tasks.read(task, cache)
    with matryo.load() as model:
        made = prepare(
            [one.row for one in questions], model.tokenizer, context=64, stride=32, max_tokens=8
        )
    return made, [one.json for one in questions]  # type: ignore[return-value]


def test_every_task_has_a_file_in_the_list_of_hashes() -> None:
    assert {f"heldout/{task.name}.jsonl" for task in TASKS} == set(tasks.expected())


def test_rows_come_in_parts_and_other_rows_are_refused(cache: Path) -> None:
    questions = tasks.read(asked("facts"), cache)
    assert {question.row.part for question in questions} == {"sum", "plural"}
    parts = [question.row.part for question in tasks.read(asked("translate"), cache)]
    assert parts == ["to English", "from English", "between the others"]
    with (cache / "heldout/facts.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(SystemExit, match=r"facts\.jsonl is not the file whose digest"):
        tasks.read(asked("facts"), cache)


def test_another_name_of_a_concept_is_accepted(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    egg = Concept("🥚", {"en": "egg"}, {"en": ("breakfast", "food")})
    monkeypatch.setattr(tasks, "_concepts", lambda cache: {"🥚": egg})
    rows = [chat("emoji", "en", "Caption in English.", "egg", concept="🥚")]
    write(cache / "heldout/emoji.jsonl", rows)
    tasks.expected()["heldout/emoji.jsonl"] = finish.digest(cache / "heldout/emoji.jsonl")
    made, _ = items(asked("emoji"), cache)
    exact, accepted = asked("emoji").metrics
    for answer, right in (("Egg.", (1, 1)), ("food", (0, 1)), ("hen", (0, 0))):
        given = [{"text": answer}]
        found = tuple(one.columns(made, given)[0, 0] for one in (exact, accepted))
        assert found == right


def test_keywords_are_counted_one_by_one(cache: Path) -> None:
    more = {"accepted": ["hen", "egg", "farm", "bird"]}
    rows = [chat("emoji_keywords", "en", "Keywords in English.", "hen, egg, farm", **more)]
    write(cache / "heldout/emoji_keywords.jsonl", rows)
    tasks.expected()["heldout/emoji_keywords.jsonl"] = finish.digest(
        cache / "heldout/emoji_keywords.jsonl"
    )
    made, _ = items(asked("emoji_keywords"), cache)
    for answer, right, of in (
        ("Bird, hen, egg", 3, 3), ("hen", 1, 3), ("hen, hen", 1, 3), ("a, b, c, egg", 1, 4),
        ("", 0, 3),
    ):  # fmt: skip
        assert KEYWORDS.columns(made, [{"text": answer}]).tolist() == [[right, of]]


def test_what_needs_no_model(cache: Path) -> None:
    made, documents = items(asked("facts"), cache)
    how, value = tasks.without_a_model(asked("facts"), made, documents)["exact"]
    # One of five sums is right, and the only plural.
    assert how == "the most frequent answer" and value == pytest.approx(100 * 2 / 6)
    made, documents = items(asked("transcribe_kokoro"), cache)
    assert tasks.without_a_model(asked("transcribe_kokoro"), made, documents)["wer"][1] == 100
    made, documents = items(asked("translate"), cache)
    copied = tasks.without_a_model(asked("translate"), made, documents)
    assert copied["exact"][1] == 0 < copied["chrf"][1] < 50
    made, documents = items(asked("prose"), cache)
    bits = tasks.without_a_model(asked("prose"), made, documents)["bits_per_byte"]
    assert bits == ("frequencies of bytes", 1.0)
    documents = [{"options": ["a", "b"]}, {"options": ["a", "b", "c", "d"]}]
    chance = tasks.without_a_model(asked("emoji_choice"), made, documents)["exact"]
    assert chance == ("one at random", 37.5)


def test_the_document_has_every_size_and_part(cache: Path) -> None:
    with matryo.load(threads=1) as model, Store(cache / "results.sqlite") as store:
        plans = evaluate.sizes(model)
        assert list(plans) == [*evaluate.RUNGS, *evaluate.MIXES]
        assert not {*map(plans.get, evaluate.MIXES)} & {*map(plans.get, evaluate.RUNGS)}
        parameters = evaluate.effective(model, plans)
        assert 2 * parameters["mixed"] == parameters["small"] + parameters["medium"]
        document = {
            name: evaluate.measure(asked(name), cache, model, plans, store)
            for name in ("facts", "prose")
        }
        again = evaluate.measure(asked("facts"), cache, model, plans, store)
    assert document["facts"] == again
    exact = document["facts"]["metrics"]["exact"]
    assert {part: one["items"] for part, one in exact["parts"].items()} == {"plural": 1, "sum": 5}
    assert set(exact["sizes"]) == set(exact["parts"]["sum"]["sizes"]) == set(plans)
    assert [set(one["answers"]) for one in document["facts"]["samples"]] == 3 * [
        set(evaluate.RUNGS)
    ]
    assert document["prose"]["samples"] == []
    bits = document["prose"]["metrics"]["bits_per_byte"]["sizes"]["large"]["value"]
    assert math.isfinite(bits)
    json.dumps(document, allow_nan=False)


def test_costs_that_are_kept_stay_those_of_their_device(tmp_path: Path) -> None:
    path = tmp_path / "nano.json"
    here = {"model": {"identity": "a"}, "device": {"isa": "avx2"}}
    assert evaluate.begun(here, path) == {**here, "sizes": {}, "tasks": {}}
    there = {**here, "device": {"isa": "avx512"}, "sizes": {"tiny": {}}, "tasks": {"prose": {}}}
    path.write_text(json.dumps(there))
    assert evaluate.begun(here, path) == there
    path.write_text(json.dumps({**there, "sizes": {}}))  # none were measured
    assert evaluate.begun(here, path) == {**there, "sizes": {}, "device": here["device"]}
    other = {**here, "model": {"identity": "b"}}
    assert evaluate.begun(other, path) == {**other, "sizes": {}, "tasks": {}}


def test_the_mixed_plan_is_compared_with_the_line_between_its_neighbours() -> None:
    parameters = {"tiny": 1, "small": 2, "medium": 4, "large": 8, "mix": 3}
    shares = {"tiny": 0, "small": 2, "medium": 6, "large": 9, "mix": 5}
    columns = {name: np.array([[share, 10.0]] * 4) for name, share in shares.items()}
    exact, wer = asked("flags").metrics[0], asked("transcribe_kokoro").metrics[0]
    for metric, better in ((exact, 10.0), (wer, -10.0)):
        found = evaluate.above_the_line(metric, columns, parameters, "mix")
        assert (found.value, found.low, found.high) == pytest.approx((better, better, better))


def test_cells_cannot_leave_their_table() -> None:
    assert page._cell("a | b\n<c>") == "a \\| b &lt;c>"
    assert len(page._cell("x" * 300)) == 100 and page._cell("") == "(nothing)"
    figure = {"value": 9.5, "low": 9.0, "high": 10.0}
    assert page.text_of(figure) == "9.50 [9.00, 10.00]"
    assert page.text_of({**figure, "low": None}, bold=True) == "**9.50**"


def test_losses_are_points_of_the_worse_direction() -> None:
    def task(metric: str, higher: bool, large: float, tiny: float, above: float) -> dict[str, Any]:
        values = {"tiny": {"value": tiny}, "large": {"value": large}, "mixed": {"value": 0.0}}
        found = {"higher_is_better": higher, "sizes": values}
        return {"metrics": {metric: found | {"above_the_line": {"mixed": {"value": above}}}}}

    tasks = {name: task("exact", True, 60.0, 50.0, 1.0) for name in page.TITLES}
    tasks |= {name: task("bits_per_byte", False, 1.5, 1.53, 0.01) for name in ("words", "prose")}
    tasks["transcribe_espeak"] = task("wer", False, 20.0, 19.0, -2.0)
    rows = list(page.losses({"sizes": {"tiny": {}, "large": {}, "mixed": {}}, "tasks": tasks}))
    assert rows[0] == "| tasks, points | tiny | mixed, above the line |"
    assert "pictures | 10.0 to 10.0 | 1.0 to 1.0 |" in rows[4]
    assert "bit a byte | 3.0 to 3.0 | 1.0 to 1.0 |" in rows[3]
    assert "speech → text | -1.0 to 10.0 | -2.0 to 1.0 |" in rows[5]
