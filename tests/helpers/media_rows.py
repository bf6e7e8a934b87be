"""Training rows with pictures and sounds, and a recipe of the tiny multimodal model for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from helpers.media import picture, sound_file, tone
from helpers.media_text import write_text_files
from helpers.towers import multimodal_config

PLANS = {"small": {"ffn_width": 64}, "large": {}}


def asked(*content: Any, answer: str, **more: Any) -> dict[str, Any]:
    """A row of one question."""
    messages = [
        {"role": "user", "content": list(content)},
        {"role": "assistant", "content": [text(answer)]},
    ]
    return {"messages": messages, **more}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def write_rows(directory: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    path = directory / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_media(directory: Path, count: int = 3) -> list[dict[str, Any]]:
    """Pictures and sounds in a folder below, and rows about them and about neither."""
    (directory / "media").mkdir()
    rows = []
    for n in range(count):
        Image.fromarray(np.roll(picture(), 50 * n, 2)).save(directory / f"media/{n}.png")
        wave = tone(0.5 + 0.2 * n, hertz=200.0 * (n + 1))
        (directory / f"media/{n}.wav").write_bytes(sound_file(wave, 16000, "wav", "pcm_s16le"))
        shown = {"type": "image", "image": f"media/{n}.png"}
        rows += [
            asked(shown, text("what?"), answer="b" * (n + 1), label=f"thing {n}"),
            asked(
                text("say:"), {"type": "audio", "path": f"media/{n}.wav"},
                answer="ab" * n + "c", transcript="Ab " * n + "c!",
            ),
            asked(text("hi"), answer="yo"),
        ]  # fmt: skip
    return rows


def write_media_recipe(directory: Path, **changes: Any) -> Path:
    """A recipe of both encoders and all kinds of rows, beside its files. `a__b` changes a.b."""
    write_rows(directory, write_media(directory))
    (directory / "texts.txt").write_text("abc abd " * 30)
    (directory / "tokenizer").mkdir()
    write_text_files(directory / "tokenizer")
    config = multimodal_config()
    del config["vision_config"]["rms_norm_eps"]  # JSON's 1e-06 is a text in YAML
    config["text_config"]["eos_token_id"] = [1, 491]
    mix = [{"files": ["rows.jsonl"], "weight": 3.0}, {"files": ["texts.txt"]}]
    recipe: dict[str, Any] = {
        "output": "out",
        "rows": 3,
        "accumulate": 2,
        "threads": 1,
        "seed": 5,
        "model": {"config": config, "tokenizer": "tokenizer", "plans": PLANS},
        "data": {"mix": mix, "sequence": 64, "picture_changes": 0.5, "sound_changes": 0.5},
        "objective": {"mode": "sample", "classes": 0.3, "ctc": 0.3},
        "optimizer": {"rate": 0.002},
        "schedule": {"steps": 4},
    }
    for key, value in changes.items():
        place = recipe
        *parents, last = key.split("__")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    path = directory / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path
