"""The stages of the build: what each one needs, does, and is limited to in the quick build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.nano.corpus import emoji, shapes, translation, vocabulary

Build = Callable[[Path, Path, int], None]  # sources, cache, limit


@dataclass(frozen=True)
class Stage:
    """One step; `quick` is its size in the quick build, 0 if that leaves it out."""

    build: Callable[[Path, int], None]
    sources: tuple[str, ...]
    quick: int


def stage(build: Build, *keys: str, quick: int) -> Stage:
    """A step that reads packages."""
    return Stage(lambda cache, limit: build(cache / "sources", cache, limit), keys, quick)


ART = tuple(f"art-{artist}" for artist in (*emoji.TRAINED, emoji.UNSEEN))
NAMES = ("names", "names-derived")

STAGES = {
    "emoji": stage(emoji.build, *ART, *NAMES, quick=60),
    "shapes": stage(shapes.build, "easy-vqa", quick=400),
    "translation": stage(translation.build, *NAMES, quick=1500),
    "tokenizer": Stage(lambda cache, limit: vocabulary.build(cache), (), 1),
}
