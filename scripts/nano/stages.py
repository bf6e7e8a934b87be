"""The recipes of matryo-nano, one a stage.

In: CACHE with the rows and the tokenizer, OUTPUT. Out: `OUTPUT/STAGE.yaml` for each stage, which
`matryo train` runs in this order; each starts from what the one before has exported. A recipe that
is there already is kept, so that a run that was stopped continues.

    vision  the picture encoder alone: which concept is it?
    sound   the sound encoder alone: which letters are heard?
    words   the decoder on everything, and the projections into it; a decoder that knows nothing yet
            would spoil the encoders
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.nano.corpus import rows as files
from scripts.nano.corpus.rows import Row
from scripts.nano.shape import config, plans

from matryo.speech.prompts import LANGUAGES, speech_prompt

SIDE = 64
# A row of prose has as many labels as sixty answers, and as much of the gradient.
TEXTS = {"translate": 0.86, "facts": 0.045, "words": 0.06, "prose": 0.025, "talk": 0.01}
SEEN, HEARD, SAID, ASKED = "seen", "heard", "said", "asked"  # files that are made here, see `main`
LABELLED = {"easy_vqa": 0.12, "flags": 0.08}  # pictures that have no captions, but show something
# One caption a row: of five in a row, four can be translated from the first, without looking.
PICTURES = {
    "emoji": 0.68, SEEN: 0.03, "easy_vqa": 0.145, "emoji_choice": 0.055, "emoji_keywords": 0.02,
    "emoji_yes_no": 0.035, "flags": 0.035,
}  # fmt: skip
SPEECH = {"prompts": 0.25, "espeak": 0.65, "kokoro": 0.1}
_WORD = re.compile(r"[^\W\d_]{3,}")
_TOO_OFTEN = 400  # concepts
_NO_LABEL = {"yes", "no"}
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
    _write_once(output / f"{SEEN}.jsonl", _seen(train))
    for name in LABELLED:
        if (train / f"{name}.jsonl").exists():
            _write_once(output / f"{SEEN}_{name}.jsonl", _labelled(train, name))
    shown = {SEEN: 1 - sum(LABELLED.values())}
    shown |= {f"{SEEN}_{name}": weight for name, weight in LABELLED.items()}
    pictures = {name: output if name == SEEN else train for name in PICTURES}
    found = {
        "vision": _recipe(
            cache, output, "vision", None, _mix(output, shown, 1.0), ["emoji"],
            {"decoder": False, "classes": 1.0}, encoder, steps=7200, rows=64, accumulate=1,
            freeze=["text", "audio"],
        ),
    }  # fmt: skip
    mix: list[tuple[Mapping[str, float], Path | Mapping[str, Path], float]] = [
        (TEXTS, train, 0.4), (PICTURES, pictures, 0.6),
    ]  # fmt: skip
    held_out = ["translate", "emoji"]
    if speech:
        for name in speech:
            _write_once(output / f"{HEARD}_{name}.jsonl", _heard(train, name))
            _write_once(output / f"{SAID}_{name}.jsonl", _heard(train, name, "transcribe"))
        _write_once(output / f"{ASKED}.jsonl", _asked(train, speech))
        clips = {f"{HEARD}_{name}": weight for name, weight in SPEECH.items()}
        heard = [f"transcribe_{name}" for name in speech]
        found["sound"] = _recipe(
            cache, output, "sound", "vision", _mix(output, clips, 1.0), heard,
            {"decoder": False, "ctc": 1.0}, encoder, steps=5200, rows=16, accumulate=1,
            freeze=["text", "vision"],
        )  # fmt: skip
        # What was said and nothing else: in a conversation about a clip most of what is learned is
        # to translate a text.
        said = {f"{SAID}_{name}": weight for name, weight in SPEECH.items()}
        mix = [
            (TEXTS, train, 0.22), (PICTURES, pictures, 0.52), (said, output, 0.21),
            (SPEECH, train, 0.035), ({ASKED: 1.0}, output, 0.015),
        ]  # fmt: skip
        held_out += heard
    found["words"] = _recipe(
        cache, output, "words", list(found)[-1],
        [one for weights, places, total in mix for one in _mix(places, weights, total)], held_out,
        {"mode": "sample", "rungs": RUNGS, "mixes": 0.2}, decoder, steps=11000, rows=16,
        accumulate=4, freeze=["vision_tower", "audio_tower"],
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


def _mix(
    places: Path | Mapping[str, Path], weights: Mapping[str, float], total: float
) -> list[dict[str, Any]]:
    """Sources with the weights of those that there are, `total` together. places: the directory of
    all, or of each
    """
    paths = {
        name: (places if isinstance(places, Path) else places[name]) / f"{name}.jsonl"
        for name in weights
    }
    there = {name: weight for name, weight in weights.items() if paths[name].exists()}
    whole = sum(there.values())
    return [
        {"files": [str(paths[name])], "weight": round(total * weight / whole, 5)}
        for name, weight in there.items()
    ]


def _write_once(path: Path, rows: Iterator[Row]) -> None:
    if not path.exists():
        files.write(path, rows)


def _together(rows: Iterable[Row], kind: str, train: Path) -> Iterator[Row]:
    """All that is asked about one picture or clip as one conversation, which has it once: what its
    embeddings cost is shared by the answers.

    kind: image or audio
    """
    about: dict[str, Row] = {}
    for row in rows:
        question, answer = row["messages"]
        (medium,) = files.media(row)
        if medium not in about:
            about[medium] = row
            for item in question["content"]:
                if item["type"] == kind:
                    item[kind] = str(train / medium)
        else:
            left = [item for item in question["content"] if item["type"] == "text"]
            about[medium]["messages"] += [{"role": "user", "content": left}, answer]
    yield from about.values()


def _seen(train: Path) -> Iterator[Row]:
    """Pictures, each with its captions, its concept and the words of the English caption: a
    thousand concepts of a few pictures each teach little before they share what is common to them.
    """
    rows = files.read(train / "emoji.jsonl")
    words: dict[str, set[str]] = {}
    for row in rows:
        if row["lang"] == "en":
            caption = files.answer(row).casefold()
            words.setdefault(row["concept"], set()).update(_WORD.findall(caption))
    often = Counter(word for found in words.values() for word in found)
    for row in _together(rows, "image", train):
        shared = sorted(w for w in words.get(row["concept"], ()) if 1 < often[w] < _TOO_OFTEN)
        yield {"messages": row["messages"], "concept": [row["concept"], *shared]}


def _labelled(train: Path, name: str) -> Iterator[Row]:
    """Pictures, each with all that is asked about it, and as concepts what is answered in English:
    a shape, a colour, a country.
    """
    answers: dict[str, set[str]] = {}
    rows = files.read(train / f"{name}.jsonl")
    for row in rows:
        (picture,) = files.media(row)
        answer = files.answer(row).casefold()
        if row["lang"] == "en" and answer not in _NO_LABEL:
            answers.setdefault(str(train / picture), set()).add(answer)  # as `_together` has it
    for row in _together(rows, "image", train):
        (picture,) = files.media(row)
        if picture in answers:
            yield {"messages": row["messages"], "concept": sorted(answers[picture])}


def _heard(train: Path, name: str, *tasks: str) -> Iterator[Row]:
    """Clips, each with all that is asked about it, what was said and its translations, or with its
    rows of these tasks alone.
    """
    rows = files.read(train / f"{name}.jsonl")
    asked = (row for row in rows if not tasks or row["task"] in tasks)
    for row in _together(asked, "audio", train):
        yield {"messages": row["messages"], "said": row["said"]}


def _asked(train: Path, speech: list[str]) -> Iterator[Row]:
    for name in speech:
        for number, row in enumerate(files.read(train / f"{name}.jsonl")):
            (clip,) = files.media(row)
            answer = files.answer(row)
            spoken, to = row["lang"], None
            if row["task"] != "transcribe":
                spoken, to = row["source"], row["lang"]
                answer = f"{row['said']}\n{LANGUAGES[to]}: {answer}"
            # Who asks may not know the language.
            prompt = speech_prompt(None if number % 3 == 0 else spoken, to)
            content = [files.text(prompt), files.audio(str(train / clip))]
            yield {
                "messages": [{"role": "user", "content": content},
                             {"role": "assistant", "content": answer}],
                "said": row["said"],
            }  # fmt: skip


def main() -> None:
    """Writes the recipes, and beside the tokenizer what pictures and answers are like.

    Beside the recipes lie rows that are made of the corpus: pictures with all their captions,
    clips with what was said, alone and with its translations, and clips with the prompts of
    `matryo transcribe`.
    """
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
