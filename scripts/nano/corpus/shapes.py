"""Questions about coloured shapes: easy-VQA with its own split.

In: the `easy-vqa` package. Out: `train/easy_vqa.jsonl` (all 38,575 training questions) and
`heldout/easy_vqa.jsonl` (1,200 of the 9,673 test questions), pictures of 64 x 64.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from scripts.nano.corpus import rows

HELD_OUT_QUESTIONS = 1200


def build(sources: Path, cache: Path, limit: int) -> None:
    """Copy the pictures and write the rows; `limit` questions of each split if not 0."""
    data = sources / "easy-vqa" / "easy_vqa" / "data"
    for split, folder, name in (("train", "train", "shapes"), ("test", "heldout", "shapes-test")):
        questions = json.loads((data / split / "questions.json").read_text("utf-8"))
        rows.generator(f"easy_vqa {split}").shuffle(questions)
        most = limit or (len(questions) if split == "train" else HELD_OUT_QUESTIONS)
        listed = []
        for question, answer, number in questions[:most]:
            file = f"pics/{name}-{number}.png"
            target = cache / folder / file
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(data / split / "images" / f"{number}.png", target)
            prompt = [rows.image(file), rows.text(question)]
            listed.append(rows.chat("easy_vqa", "en", prompt, answer))
        rows.write(cache / folder / "easy_vqa.jsonl", listed)
