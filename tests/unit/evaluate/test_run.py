"""A task at several sizes: figures, what is left out, and that nothing is computed twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.media import encoded, picture, sound_file, tone
from matryo.errors import InputError, PlanError
from matryo.evaluate import Report, Settings, evaluate, read_task
from matryo.evaluate.evaluator import Evaluator
from matryo.evaluate.items import ReferenceItem
from matryo.evaluate.likelihood import Scorer
from matryo.evaluate.store import Store
from matryo.loading import Model


def task_file(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    questions = [
        {"question": f"a b {n}", "choices": ["the", "b a e", "th"], "answer": n % 3}
        for n in range(7)
    ]
    prompts = [{"prompt": f"the {n}", "reference": "a b", "task": "say"} for n in range(3)]
    text = {"text": "a b the e " * 30, "task": "text"}
    return task_file(tmp_path / "mixed.jsonl", *questions, *prompts, text)


def test_every_part_has_figures_of_every_size(model: Model, mixed: Path) -> None:
    seen: list[tuple[float, float | None, str]] = []
    report = evaluate(
        model,
        read_task(mixed),
        ["small", "large"],
        Settings(max_tokens=4, window=32, resamples=50),
        progress=lambda done, total, what: seen.append((done, total, what)),
    )
    assert [(part.name, len(part.items)) for part in report.parts] == [
        ("mixed", 7), ("say", 3), ("text", 18),
    ]  # fmt: skip
    for part in report.parts:
        for figures in part.figures.values():
            assert set(figures) == {"small", "large"}
    assert report.part("mixed").chance == pytest.approx(100 / 3)
    with pytest.raises(KeyError):
        report.part("nothing")
    assert seen[-1] == (56, 56, "large")


def test_bits_per_byte_of_a_text_that_fits_are_those_of_its_logits(
    model: Model, tmp_path: Path
) -> None:
    text = "a b the e th " * 3
    (tmp_path / "t.txt").write_text(text)
    report = evaluate(model, read_task(tmp_path / "t.txt"), ["medium"])
    ids = model.tokenizer.encode(text, bos=True)
    logits = model.logits(ids, "medium").astype(np.float64)[:-1]
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids) - 1), ids[1:]]
    bits = nats.sum() / np.log(2) / len(text.encode())
    assert report.parts[0].figures["bits_per_byte"]["medium"].value == pytest.approx(bits, rel=1e-5)


def test_the_document_holds_all_that_was_asked_and_said(
    model: Model, mixed: Path, tmp_path: Path
) -> None:
    settings = Settings(max_tokens=4, limit=2, seed=5, window=32, resamples=20)
    report = evaluate(model, read_task(mixed), ["small"], settings)
    report.save(tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["settings"]["seed"] == 5 and document["settings"]["stride"] == 16
    assert document["model"]["checkpoint"] == model.identity["checkpoint"]
    rows = document["rows"]
    assert [row["asks"]["part"] for row in rows] == ["mixed"] * 2 + ["say"] * 2 + ["text"] * 2
    assert rows[2]["asks"]["prompt"].startswith("the ") and "text" in rows[2]["results"]["small"]
    assert document["sizes"]["small"]["plan"] == model.plan("small").to_json()


def test_a_limit_takes_the_same_rows_for_the_same_seed(model: Model, mixed: Path) -> None:
    def keys(seed: int) -> list[str]:
        items, _ = Evaluator(model, Settings(limit=3, seed=seed)).items(read_task(mixed).rows)
        return [item.key for item in items]

    assert keys(0) == keys(0) and any(keys(0) != keys(seed) for seed in (1, 2, 3))


def test_a_second_run_computes_nothing(
    model: Model, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(max_tokens=4, window=32, resamples=20)

    def run(rows: int | None = None) -> Report:
        with Store(tmp_path / "s.sqlite") as store:
            return evaluate(model, read_task(mixed), ["small", "large"], settings, store=store)

    original, calls = Scorer.score, []

    def stopping(self: Scorer, plan: Any, items: Any) -> Any:
        """As if the process had been stopped in the middle of the first size."""
        for number, found in enumerate(original(self, plan, items)):
            if number == 5:
                raise KeyboardInterrupt
            yield found

    def counting(self: Scorer, plan: Any, items: Any) -> Any:
        calls.append(len(items))
        yield from original(self, plan, items)

    monkeypatch.setattr(Scorer, "score", stopping)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(Scorer, "score", counting)
    first = run()
    assert calls == [20, 25]  # of 25 items, 5 were known
    second = run()
    assert calls[2:] == [0, 0]
    assert first.to_json(rows=True) == second.to_json(rows=True)
    alone = evaluate(model, read_task(mixed), ["small", "large"], settings)
    assert alone.to_json(rows=True) == first.to_json(rows=True)


def test_rows_that_the_model_cannot_take_are_left_out_and_named(
    model: Model, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"no picture")
    asked = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]
    file = task_file(
        tmp_path / "t.jsonl",
        {"question": "a " * 3000, "choices": ["a", "b"], "answer": 0},
        {"question": "a", "choices": ["a", "b"], "answer": 0},
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": "x"}],
         "task": "see"},
    )  # fmt: skip
    report = evaluate(model, read_task(file), ["small"], Settings(resamples=10))
    assert [part.name for part in report.parts] == ["t"] and len(report.parts[0].items) == 1
    first, second = report.left_out
    assert "line 1" in first and "the context holds" in first
    assert "line 3" in second


def test_nothing_to_evaluate_is_an_error(model: Model, tmp_path: Path) -> None:
    long = {"question": "a " * 3000, "choices": ["a", "b"], "answer": 0}
    with pytest.raises(InputError, match="no row can be evaluated"):
        evaluate(model, read_task(task_file(tmp_path / "t.jsonl", long)), ["small"])
    with pytest.raises(PlanError, match="no plan named 'huge'"):
        evaluate(model, read_task(task_file(tmp_path / "u.jsonl", {"text": "a"})), ["huge"])


@pytest.mark.parametrize("field", ["limit", "window", "stride", "max_tokens", "resamples", "seed"])
def test_settings_are_checked(field: str) -> None:
    with pytest.raises(InputError, match=f"{field}: expected a whole number"):
        Settings(**{field: -1})  # type: ignore[arg-type]


def test_pictures_and_sound_are_evaluated_and_encoded_once(
    seeing_checkpoint: Path, tmp_path: Path
) -> None:
    """Conversations with media, twice the same picture; sizes of one family share their prompts."""
    import matryo
    from matryo.evaluate import answers
    from matryo.plan import Plan

    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(picture(64, 64)), "PNG"))
    (tmp_path / "b.wav").write_bytes(sound_file(tone(0.5), 16000, "wav", "pcm_s16le"))

    def conversation(kind: str, file: str, question: str, answer: str) -> dict[str, Any]:
        items = [{"type": kind, kind: file}, {"type": "text", "text": question}]
        turns = [{"role": "user", "content": items}, {"role": "assistant", "content": answer}]
        return {"messages": turns, "task": f"{kind} task"}

    file = task_file(
        tmp_path / "t.jsonl",
        conversation("image", "a.png", "a b", "the"),
        conversation("image", "a.png", "b a", "a"),
        {"audio": "b.wav", "text": "the e", "task": "transcribe"},
    )
    task = read_task(file)
    with matryo.load(seeing_checkpoint, weights="f32") as model:
        report = evaluate(model, task, ["small", "large"], Settings(max_tokens=3, resamples=5))
        assert report.left_out == ()
        assert [part.name for part in report.parts] == ["image task", "transcribe"]
        assert list(report.parts[1].figures) == ["wer", "cer"]
        full = model.plan("large")
        narrow = Plan(full.layers, (*full.ffn_width[:-1], 32), full.num_owners)
        keeping = Evaluator(model, Settings(max_tokens=3), keep_bytes=1 << 28)
        items, _ = keeping.items(task.rows)
        for plan in (full, narrow):
            alone = Evaluator(model, Settings(max_tokens=3)).results(plan, items)
            assert keeping.results(plan, items) == alone
        answerer = keeping.answerer
        assert isinstance(answerer, answers.Answerer)
        assert (answerer.computed, answerer.resumed) == (3, 3)


def test_references_are_predicted_behind_their_prompts(model: Model, mixed: Path) -> None:
    task = read_task(mixed).only("say")
    settings = Settings(likelihood=True, resamples=5)
    keeping = Evaluator(model, settings, keep_bytes=1 << 28)
    items, _ = keeping.items(task.rows)
    full = model.plan("large")
    nats, size = 0.0, 0
    for item in items:
        assert isinstance(item, ReferenceItem) and isinstance(item.row.prompt, str)
        prompt = model.tokenizer.encode(item.row.prompt, bos=True)
        reference = model.tokenizer.encode("a b")
        logits = model.logits([*prompt, *reference], full).astype(np.float64)[len(prompt) - 1 : -1]
        chances = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(reference)), reference]
        nats, size = nats + chances.sum(), size + 3
        assert keeping.results(full, [item])[item.key]["tokens"] == [len(reference)]
    report = evaluate(model, task, ["large"], settings)
    figures = report.parts[0].figures
    assert list(figures) == ["reference_bits_per_byte", "likeliest"]
    found = figures["reference_bits_per_byte"]["large"].value
    assert found == pytest.approx(nats / size / np.log(2), rel=1e-5)
    assert keeping.results(full, items) == Evaluator(model, settings).results(full, items)
    assert keeping.answerer.resumed >= len(items)
