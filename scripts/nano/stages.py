"""The recipes of matryo-nano, one a stage.

In: CACHE with the rows and the tokenizer, OUTPUT. Out: `OUTPUT/STAGE.yaml` for each stage, which
`matryo train` runs in this order; each starts from what the one before has exported. A recipe that
is there already is kept, so that a run that was stopped continues.

    vision  the picture encoder alone: which concept is it?
    words   the decoder on texts and pictures
    sound   the sound encoder alone: which letters are heard?
    joint   everything
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.nano.shape import config, plans

from matryo.speech.prompts import LANGUAGES, speech_prompt

SIDE = 64
TEXTS = {"translate": 0.5, "facts": 0.15, "words": 0.15, "prose": 0.15, "talk": 0.05}
PICTURES = {
    "emoji": 0.43, "easy_vqa": 0.2, "emoji_choice": 0.12, "emoji_keywords": 0.08,
    "emoji_yes_no": 0.12, "flags": 0.05,
}  # fmt: skip
SPEECH = {"prompts": 0.25, "espeak": 0.65, "kokoro": 0.1}
ASKED = "asked"  # clips with the prompts of `matryo transcribe`
SEEN = "seen"  # pictures with the words for what they show
_WORD = re.compile(r"[^\W\d_]{3,}")
_TOO_OFTEN = 400  # concepts
RUNGS = {"tiny": 0.18, "small": 0.18, "medium": 0.18, "large": 0.46}


def stages(cache: Path, output: Path, *, quick: bool = False) -> dict[str, dict[str, Any]]:
    """Recipes by the name of their stage, in order; without speech in the cache there are two.

    quick: a few steps of each, to see that everything works
    """
    encoder = {
        "name": "muon", "weight_decay": 0.01, "rate": 0.02, "embedding_rate": 0.004,
        "vector_rate": 0.002,
    }  # fmt: skip
    decoder = {"name": "muon", "rate": 0.02, "embedding_rate": 0.004, "vector_rate": 0.002}
    train = cache / "train"
    speech = [name for name in SPEECH if (train / f"{name}.jsonl").exists()]
    _write(output / f"{SEEN}.jsonl", _seen(train))
    words = [*_mix(train, TEXTS, 0.65), *_mix(train, PICTURES, 0.35)]
    sampled = {"mode": "sample", "rungs": RUNGS, "mixes": 0.1}
    found = {
        "vision": _recipe(
            cache, output, "vision", None, _mix(output, {SEEN: 1.0}, 1.0), ["emoji"],
            {"decoder": False, "classes": 1.0}, encoder, steps=2400, rows=64, accumulate=1,
            freeze=["text", "audio"],
        ),
        "words": _recipe(
            cache, output, "words", "vision", words, ["translate", "emoji"],
            {**sampled, "classes": 0.1}, decoder, steps=1500, rows=48, accumulate=2,
            freeze=["audio"],
        ),
    }  # fmt: skip
    if speech:
        heard = [f"transcribe_{name}" for name in speech]
        _write(output / f"{ASKED}.jsonl", _asked(train, speech))
        every = [
            *_mix(train, TEXTS, 0.4), *_mix(train, PICTURES, 0.25), *_mix(train, SPEECH, 0.15),
            *_mix(output, {ASKED: 1.0}, 0.2),
        ]  # fmt: skip
        found["sound"] = _recipe(
            cache, output, "sound", "words", _mix(train, SPEECH, 1.0), heard,
            {"decoder": False, "ctc": 1.0}, encoder, steps=3000, rows=16,
            accumulate=1, freeze=["text", "vision"],
        )  # fmt: skip
        found["joint"] = _recipe(
            cache, output, "joint", "sound", every, ["translate", "emoji", *heard],
            {**sampled, "classes": 0.1, "ctc": 0.2}, decoder | {"rate": 0.01, "vector_rate": 0.001},
            steps=3000, rows=32, accumulate=2, freeze=[],
        )  # fmt: skip
    found[list(found)[-1]]["export"]["packed"] = ["q8"]
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
    paths = [cache / "heldout" / f"{one}.jsonl" for one in held_out]
    return {
        "output": str(output / name),
        "model": model,
        "data": {
            "mix": mix,
            "held_out": [str(path) for path in paths if path.exists()],
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
        "save_every": 50,
        "evaluate_every": 400,
    }


def _mix(directory: Path, weights: dict[str, float], total: float) -> list[dict[str, Any]]:
    """Sources with the weights of those that there are, `total` together."""
    there = {name: weight for name, weight in weights.items()
             if (directory / f"{name}.jsonl").exists()}  # fmt: skip
    whole = sum(there.values())
    return [
        {"files": [str(directory / f"{name}.jsonl")], "weight": round(total * weight / whole, 5)}
        for name, weight in there.items()
    ]


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    if not path.exists():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text(text, "utf-8")


def _seen(train: Path) -> Iterator[dict[str, Any]]:
    """Pictures, each once, with their concept and the words of its English caption: a thousand
    concepts of a few pictures each teach little before they share what is common to them.
    """
    rows = [json.loads(line) for line in (train / "emoji.jsonl").read_text("utf-8").splitlines()]
    words: dict[str, set[str]] = {}
    for row in rows:
        if row["lang"] == "en":
            caption = row["messages"][1]["content"][0]["text"].casefold()
            words.setdefault(row["concept"], set()).update(_WORD.findall(caption))
    often = Counter(word for found in words.values() for word in found)
    pictures: set[str] = set()
    for row in rows:
        question = row["messages"][0]["content"]
        picture = next(item for item in question if item["type"] == "image")
        if picture["image"] in pictures:
            continue
        pictures.add(picture["image"])
        picture["image"] = str(train / picture["image"])
        shared = sorted(w for w in words.get(row["concept"], ()) if 1 < often[w] < _TOO_OFTEN)
        yield {"messages": row["messages"], "concept": [row["concept"], *shared]}


def _asked(train: Path, speech: list[str]) -> Iterator[dict[str, Any]]:
    for name in speech:
        for number, line in enumerate((train / f"{name}.jsonl").read_text("utf-8").splitlines()):
            row = json.loads(line)
            question, reply = row["messages"]
            clip = next(item["audio"] for item in question["content"] if item["type"] == "audio")
            answer = reply["content"][0]["text"]
            spoken, to = row["lang"], None
            if row["task"] != "transcribe":
                spoken, to = row["source"], row["lang"]
                answer = f"{row['said']}\n{LANGUAGES[to]}: {answer}"
            # Who asks may not know the language.
            prompt = speech_prompt(None if number % 3 == 0 else spoken, to)
            content = [
                {"type": "text", "text": prompt}, {"type": "audio", "audio": str(train / clip)}
            ]  # fmt: skip
            yield {
                "messages": [{"role": "user", "content": content},
                             {"role": "assistant", "content": answer}],
                "said": row["said"],
            }  # fmt: skip


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
        path = output / f"{name}.yaml"
        if not path.exists():
            path.write_text(json.dumps(recipe, indent=1) + "\n")
        print(name)


if __name__ == "__main__":
    main()
