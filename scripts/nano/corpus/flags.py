"""Flags: which country or region it is, in five languages.

In: round and waving flags of several icon sets, names of territories (CLDR, by Babel). Out:
`train/flags.jsonl`, and `heldout/flags.jsonl` of the flags of an artist that is not trained on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from scripts.nano.corpus import cldr, emoji, pictures, rows
from scripts.nano.corpus.languages import LANGUAGES

TRAINED = ("noto", "emojione", "openmoji", "fxemoji", "emojione-v1", "noto-v1")
NO_TERRITORY = ("ZZ", "XA", "XB", "EU", "UN", "EZ", "QO")
ASK = {
    "en": "Which country?", "es": "¿Qué país?", "fr": "Quel pays ?", "it": "Quale paese?",
    "pt": "Qual país?",
}  # fmt: skip


def territories() -> dict[str, dict[str, str]]:
    """Names by language of every country and region with a code of two letters."""
    from babel import Locale  # type: ignore[import-not-found, unused-ignore]

    locales = {x: Locale.parse("pt_BR" if x == "pt" else x) for x in LANGUAGES}
    names = {x: {str(k): v for k, v in locale.territories.items()} for x, locale in locales.items()}
    return {
        code: {x: cldr.clean(known[code]) for x, known in names.items()}
        for code in sorted(names["en"])
        if re.fullmatch("[A-Z]{2}", code)
        and code not in NO_TERRITORY
        and all(code in known for known in names.values())
    }


def flag(code: str) -> str:
    """The emoji of a flag."""
    return "".join(chr(0x1F1E6 + ord(letter) - ord("A")) for letter in code)


def drawn(sources: Path, artist: str, codes: list[str], target: Path) -> Iterator[tuple[str, str]]:
    """Draw the flags that a set has; yields code and file."""
    folder = sources / ("flags" if artist == "circle" else f"art-{artist}")
    icons = pictures.icon_set(folder)
    names = {} if artist == "circle" else emoji.names_of(sources, artist)
    for code in codes:
        name = code.lower() if artist == "circle" else names.get(flag(code))
        document = pictures.svg(icons, name) if name else None
        if document is None:
            continue
        file = f"pics/flag-{artist}-{code.lower()}.png"
        if pictures.make(document, target, file, on_background=artist == emoji.UNSEEN):
            yield code, file


def question(file: str, names: dict[str, str], language: str) -> rows.Row:
    """Which country it is."""
    prompt = [rows.image(file), rows.text(ASK[language])]
    return rows.chat("flags", language, prompt, names[language])


def build(sources: Path, cache: Path, limit: int) -> None:
    """Draw the flags and write the rows; of `limit` countries if not 0."""
    known = territories()
    codes = list(known)[: limit or None]
    listed, trained = [], set()
    for artist in ("circle", *TRAINED):
        for code, file in drawn(sources, artist, codes, cache / "train"):
            listed += [question(file, known[code], language) for language in LANGUAGES]
            trained.add(code)
    rows.write(cache / "train" / "flags.jsonl", listed, order="flags")
    unseen = drawn(sources, emoji.UNSEEN, [c for c in codes if c in trained], cache / "heldout")
    held = [question(file, known[code], x) for code, file in unseen for x in LANGUAGES]
    rows.write(cache / "heldout" / "flags.jsonl", held, order="flags", limit=600)
