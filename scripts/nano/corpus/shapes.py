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
    for split, folder, most in (("train", "train", limit), ("test", "heldout", HELD_OUT_QUESTIONS)):
        questions = json.loads((data / split / "questions.json").read_text("utf-8"))
        listed = [
            rows.chat(
                "easy_vqa", "en", [rows.image(f"pics/shapes-{number}.png"), rows.text(question)],
                answer,
            )
            for question, answer, number in questions
        ]  # fmt: skip
        rows.generator(f"easy_vqa {split}").shuffle(listed)
        listed = listed[: min(most, limit) if most and limit else most or len(listed)]
        for file in sorted({path for row in listed for path in rows.media(row)}):
            target = cache / folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            number = target.stem.removeprefix("shapes-")
            shutil.copyfile(data / split / "images" / f"{number}.png", target)
        rows.write(cache / folder / "easy_vqa.jsonl", listed)
