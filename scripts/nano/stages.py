"""The recipes of matryo-nano, one a stage.

In: CACHE with the rows and the tokenizer, OUTPUT. Out: `OUTPUT/STAGE.yaml` for each stage, which
`matryo train` runs in this order; each starts from what the one before has exported.

    vision  the picture encoder alone: which concept is it?
    words   the decoder on texts and pictures
    sound   the sound encoder alone: which letters are heard?
    joint   everything
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from shape import config, plans

SIDE = 64
SPEECH = ("speech", "speech_translation")  # files of rows with clips
RUNGS = {"tiny": 0.18, "small": 0.18, "medium": 0.18, "large": 0.46}
PICTURES = {
    "emoji": 0.45, "easy_vqa": 0.2, "emoji_choice": 0.13, "emoji_keywords": 0.09,
    "emoji_yes_no": 0.13,
}  # fmt: skip


def stages(cache: Path, output: Path, *, quick: bool = False) -> dict[str, dict[str, Any]]:
    """Recipes by the name of their stage, in order.

    quick: a few steps of each, to see that everything works
    """
    encoder = {"name": "adamw", "weight_decay": 0.02, "rate": 0.002}
    decoder = {"name": "muon", "rate": 0.02, "embedding_rate": 0.004, "vector_rate": 0.002}
    speech = [name for name in SPEECH if _path(cache, "train", name).exists()]
    texts = [
        path.stem
        for path in sorted((cache / "train").glob("*.jsonl"))
        if path.stem not in {*PICTURES, *SPEECH}
    ]
    words = _mix(cache, {**_share(texts, 0.65), **_scaled(PICTURES, 0.35)})
    every = _mix(cache, {**_share(texts, 0.5), **_scaled(PICTURES, 0.25), **_share(speech, 0.25)})
    sampled = {"mode": "sample", "rungs": RUNGS, "mixes": 0.1}
    found = {
        "vision": _recipe(
            cache, output, "vision", None, _mix(cache, {"emoji": 1.0}), ["emoji"],
            {"decoder": False, "classes": 1.0}, encoder, steps=2400, rows=64, accumulate=1,
            freeze=["text", "audio"],
        ),
        "words": _recipe(
            cache, output, "words", "vision", words, ["translate", "emoji"],
            {**sampled, "classes": 0.1}, decoder, steps=6000, rows=48, accumulate=2,
            freeze=["audio"],
        ),
    }  # fmt: skip
    if speech:
        found["sound"] = _recipe(
            cache, output, "sound", "words", _mix(cache, {"speech": 1.0}), ["speech"],
            {"decoder": False, "ctc": 1.0}, encoder | {"rate": 0.001}, steps=6000, rows=16,
            accumulate=1, freeze=["text", "vision"],
        )  # fmt: skip
        found["joint"] = _recipe(
            cache, output, "joint", "sound", every, ["translate", "emoji", "speech"],
            {**sampled, "classes": 0.1, "ctc": 0.2}, decoder | {"rate": 0.01, "vector_rate": 0.001},
            steps=6000, rows=32, accumulate=2, freeze=[],
        )  # fmt: skip
    last = list(found)[-1]
    found[last]["export"]["packed"] = ["q8"]
    if quick:
        for recipe in found.values():
            recipe["schedule"] |= {"steps": 4, "warmup": 1}
            recipe |= {"rows": 4, "accumulate": 1, "save_every": 2, "evaluate_every": 4}
            recipe["data"]["held_out_rows"] = 4
    return found


def _recipe(
    cache: Path,
    output: Path,
    name: str,
    before: str | None,
    mix: list[dict[str, Any]],
    held_out: list[str],
    objective: dict[str, Any],
    optimizer: dict[str, Any],
    *,
    steps: int,
    rows: int,
    accumulate: int,
    freeze: list[str],
) -> dict[str, Any]:
    model: dict[str, Any] = {"freeze": freeze}
    if before is None:
        model |= {"config": config(), "plans": plans(), "tokenizer": str(cache / "tokenizer")}
    else:
        model |= {"start": str(output / before / "hf")}
    return {
        "output": str(output / name),
        "model": model,
        "data": {
            "mix": mix,
            "held_out": [str(_path(cache, "heldout", one)) for one in held_out],
            "held_out_rows": 600,
            "label": "concept",
            "transcript": "said",
            "sequence": 256,
            "bad_rows": "skip",
            "picture_changes": 1.0,
            "sound_changes": 1.0,
            "cache": str(cache / "rows"),
        },
        "objective": objective,
        "optimizer": optimizer,
        "schedule": {"steps": steps, "warmup": 40, "decay": 0.4},
        "export": {"dtype": "bf16", "packed": []},
        "rows": rows,
        "accumulate": accumulate,
        "save_every": 100,
        "evaluate_every": 400,
    }


def _path(cache: Path, split: str, name: str) -> Path:
    return cache / split / f"{name}.jsonl"


def _mix(cache: Path, weights: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {"files": [str(_path(cache, "train", name))], "weight": weight}
        for name, weight in weights.items()
    ]


def _share(names: list[str], total: float) -> dict[str, float]:
    return {name: total / len(names) for name in names}


def _scaled(weights: dict[str, float], total: float) -> dict[str, float]:
    return {name: weight * total for name, weight in weights.items()}


def main() -> None:
    """Writes the recipes, and beside the tokenizer what pictures and answers are like."""
    cache, output = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    output.mkdir(parents=True, exist_ok=True)
    size = {"size": {"height": SIDE, "width": SIDE}}
    answers = {
        "bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0, "do_sample": True,
        "temperature": 0.7, "top_k": 64, "top_p": 0.95,
    }  # fmt: skip
    for name, document in (("preprocessor_config", size), ("generation_config", answers)):
        (cache / "tokenizer" / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    for name, recipe in stages(cache, output, quick="--quick" in sys.argv).items():
        (output / f"{name}.yaml").write_text(json.dumps(recipe, indent=1) + "\n")
        print(name)


if __name__ == "__main__":
    main()
