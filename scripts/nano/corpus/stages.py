"""The stages of the build: what each one needs, does, and is limited to in the quick build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.nano.corpus import (
    definitions,
    emoji,
    espeak,
    flags,
    knowledge,
    kokoro,
    prompts,
    prose,
    shapes,
    translation,
    vocabulary,
)  # fmt: skip

Build = Callable[[Path, Path, int], None]  # sources, cache, limit


@dataclass(frozen=True)
class Stage:
    """One step; `quick` is its limit in the quick build, 0 if that leaves it out."""

    build: Build
    sources: tuple[str, ...]
    quick: int


ART = tuple(f"art-{artist}" for artist in (*emoji.TRAINED, emoji.UNSEEN))
NAMES = ("names", "names-derived")
PROMPTS = tuple(f"prompts-{x}{kind}" for x in prompts.SPEAKERS for kind in ("", "-wav"))

STAGES = {
    "emoji": Stage(emoji.build, (*ART, *NAMES), 60),
    "flags": Stage(flags.build, ("flags", *ART), 20),
    "shapes": Stage(shapes.build, ("easy-vqa",), 400),
    "translation": Stage(translation.build, NAMES, 1500),
    "knowledge": Stage(knowledge.build, (), 300),
    "words": Stage(definitions.build, ("wordnet", "chatterbot"), 500),
    "prose": Stage(prose.build, ("austen", "melville"), 300),
    "prompts": Stage(prompts.build, (*PROMPTS, "prompts-it-menardi"), 0),
    "tokenizer": Stage(vocabulary.build, (), 1),
    "espeak": Stage(espeak.build, (), 40),
    "kokoro": Stage(kokoro.build, (*kokoro.PARTS, "kokoro-vocabulary", "kokoro-voices"), 0),
}
