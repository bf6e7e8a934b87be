"""Names and keywords of emoji in five languages, from CLDR.

In: `annotations.json` of each language. Out: `Concept`s that every language names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from scripts.nano.corpus.languages import LANGUAGES


@dataclass(frozen=True)
class Concept:
    """What an emoji shows: its characters, without variation selectors, and its names."""

    emoji: str
    name: dict[str, str]
    keywords: dict[str, tuple[str, ...]]

    @property
    def key(self) -> str:
        """Its code points, as file names spell them."""
        return "-".join(f"{ord(character):x}" for character in self.emoji)


def plain(emoji: str) -> str:
    """The characters without variation selectors, which sets write differently."""
    return emoji.replace("\ufe0f", "")


def clean(text: str) -> str:
    """A name with plain spaces and apostrophes."""
    return " ".join(text.replace("\u202f", " ").replace("\u2019", "'").split())


def is_toned(emoji: str) -> bool:
    """Whether it is a variant of another emoji with a skin tone."""
    return any(0x1F3FB <= ord(character) <= 0x1F3FF for character in emoji)


def is_flag(emoji: str) -> bool:
    """Whether it is the flag of a country or region."""
    return 0x1F1E6 <= ord(emoji[0]) <= 0x1F1FF or "\U000e007f" in emoji


def read(sources: Path) -> dict[str, Concept]:
    """Concepts by emoji; those with a skin tone and flags are left out."""
    names: dict[str, dict[str, str]] = {}
    keywords: dict[str, dict[str, tuple[str, ...]]] = {}
    for key, folder in (("names", "annotations"), ("names-derived", "annotationsDerived")):
        for language in LANGUAGES:
            path = sources / key / "package" / folder / language / "annotations.json"
            entries = json.loads(path.read_text("utf-8"))[folder]["annotations"]
            for emoji, entry in entries.items():
                if "tts" not in entry or is_toned(emoji) or is_flag(emoji):
                    continue
                name = clean(entry["tts"][0])
                words = (clean(word) for word in entry.get("default", []))
                names.setdefault(plain(emoji), {})[language] = name
                keywords.setdefault(plain(emoji), {})[language] = tuple(
                    word for word in words if word != name
                )
    return {
        emoji: Concept(emoji, named, keywords[emoji])
        for emoji, named in sorted(names.items())
        if len(named) == len(LANGUAGES)
    }
