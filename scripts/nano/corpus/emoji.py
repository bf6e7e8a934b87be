"""Pictures of emoji: captions, keywords, yes or no, one of four, in five languages.

In: nine icon sets and the CLDR names. Out: `train/emoji*.jsonl` of eight sets and
`heldout/emoji*.jsonl` of the ninth, Twemoji, whose artist no training picture comes from. Sets
that share an artist (Noto and Noto v1, the two Fluent, the two EmojiOne) are all on one side.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.nano.corpus import cldr, pictures, rows
from scripts.nano.corpus.cldr import Concept
from scripts.nano.corpus.languages import LANGUAGES, NAMES

TRAINED = (
    "noto", "noto-v1", "fxemoji", "fluent-emoji", "fluent-emoji-flat", "emojione", "emojione-v1",
    "openmoji",
)  # fmt: skip
UNSEEN = "twemoji"
SEEN_OFTEN = 5  # a held-out concept was drawn by at least so many of the trained sets

YES_NO = {
    "en": ("Yes or no: {}?", "Yes", "No"), "es": ("Sí o no: ¿{}?", "Sí", "No"),
    "fr": ("Oui ou non : {} ?", "Oui", "Non"), "it": ("Sì o no: {}?", "Sì", "No"),
    "pt": ("Sim ou não: {}?", "Sim", "Não"),
}  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """One artist's picture of a concept."""

    concept: Concept
    artist: str
    file: str  # relative to the rows


def named(folder: Path) -> dict[str, str]:
    """Icon names by emoji, as one set itself lists them; none where it has no such list."""
    points = json.loads((folder / "package" / "chars.json").read_text("utf-8"))
    found: dict[str, str] = {}
    for hexadecimal, name in points.items():
        emoji = "".join(chr(int(point, 16)) for point in hexadecimal.split("-"))
        found.setdefault(cldr.plain(emoji), name)
    return found


def names_of(sources: Path, artist: str) -> dict[str, str]:
    """Icon names of one set by emoji. A set without a list names its icons as the others do."""
    own = named(sources / f"art-{artist}")
    if own:
        return own
    icons = pictures.icon_set(sources / f"art-{artist}")
    found: dict[str, str] = {}
    for other_set in (*TRAINED, UNSEEN):
        for emoji, name in named(sources / f"art-{other_set}").items():
            if name in icons["icons"] or name in icons.get("aliases", {}):
                found.setdefault(emoji, name)
    return found


def drawn(
    sources: Path, artist: str, concepts: Sequence[Concept], target: Path
) -> Iterator[Drawing]:
    """Draw every concept that a set has, into `target/pics`; only the unseen artist's pictures get
    a background.
    """
    folder = sources / f"art-{artist}"
    names, icons = names_of(sources, artist), pictures.icon_set(folder)
    for concept in concepts:
        name = names.get(concept.emoji)
        document = pictures.svg(icons, name) if name else None
        if document is None:
            continue
        file = f"pics/{artist}-{concept.key}.png"
        if pictures.make(document, target, file, on_background=artist == UNSEEN):
            yield Drawing(concept, artist, file)


def caption(drawing: Drawing, language: str) -> rows.Row:
    """What the picture shows."""
    prompt = [rows.image(drawing.file), rows.text(f"Caption in {NAMES[language]}.")]
    name = drawing.concept.name[language]
    return rows.chat("emoji", language, prompt, name, concept=drawing.concept.emoji)


def keywords(drawing: Drawing, language: str, rng: random.Random) -> rows.Row | None:
    """Three words that go with it, where there are three short ones."""
    words = [w for w in drawing.concept.keywords[language] if len(w) < 20]
    if len(words) < 3:
        return None
    prompt = [rows.image(drawing.file), rows.text(f"Keywords in {NAMES[language]}.")]
    chosen = ", ".join(sorted(rng.sample(words, 3)))
    # Any three of them are right, which measuring has to know.
    return rows.chat("emoji_keywords", language, prompt, chosen, accepted=words)


def yes_no(
    drawing: Drawing, language: str, rng: random.Random, concepts: Sequence[Concept]
) -> rows.Row:
    """Whether it is this."""
    question, yes, no = YES_NO[language]
    true = rng.random() < 0.5
    asked = drawing.concept if true else other(drawing.concept, rng, concepts)
    prompt = [
        rows.image(drawing.file), rows.text(question.format(asked.name[language])),
    ]  # fmt: skip
    return rows.chat("emoji_yes_no", language, prompt, yes if true else no)


def choice(
    drawing: Drawing, language: str, rng: random.Random, concepts: Sequence[Concept]
) -> rows.Row:
    """Which of four names fits."""
    right = drawing.concept.name[language]
    options = {right: None}
    while len(options) < 4:
        options[other(drawing.concept, rng, concepts).name[language]] = None
    listed = list(options)
    rng.shuffle(listed)
    prompt = [rows.image(drawing.file), rows.text(" / ".join(listed) + "?")]
    return rows.chat("emoji_choice", language, prompt, right, options=listed)


def other(concept: Concept, rng: random.Random, concepts: Sequence[Concept]) -> Concept:
    """Another concept with other names."""
    while True:
        found = rng.choice(concepts)
        if all(found.name[x] != concept.name[x] for x in LANGUAGES):
            return found


def questions(
    drawings: Sequence[Drawing], concepts: Sequence[Concept]
) -> dict[str, list[rows.Row]]:
    """Captions in every language and one question of each other kind for each picture."""
    found: dict[str, list[rows.Row]] = {
        "emoji": [], "emoji_keywords": [], "emoji_yes_no": [], "emoji_choice": [],
    }  # fmt: skip
    for drawing in drawings:
        found["emoji"] += [caption(drawing, language) for language in LANGUAGES]
        rng = rows.generator(drawing.file, 1)
        words = keywords(drawing, rng.choice(LANGUAGES), rng)
        if words is not None:
            found["emoji_keywords"].append(words)
        found["emoji_yes_no"].append(yes_no(drawing, rng.choice(LANGUAGES), rng, concepts))
        found["emoji_choice"].append(choice(drawing, rng.choice(LANGUAGES), rng, concepts))
    return found


def build(sources: Path, cache: Path, limit: int) -> None:
    """Draw all and write the rows; `limit` concepts if not 0."""
    everything = list(cldr.read(sources).values())
    drawings: list[Drawing] = []
    if limit:
        common = [c for c in everything if len(c.emoji) == 1 and ord(c.emoji) > 0x1F300]
        everything = rows.generator("concepts").sample(common, limit)
    for artist in TRAINED:
        drawings += drawn(sources, artist, everything, cache / "train")
    artists: dict[str, int] = {}
    for drawing in drawings:
        artists[drawing.concept.emoji] = artists.get(drawing.concept.emoji, 0) + 1
    often = [c for c in everything if artists.get(c.emoji, 0) >= SEEN_OFTEN]
    known = [c for c in everything if artists.get(c.emoji, 0) > 0]
    for task, listed in questions(drawings, known).items():
        rows.write(cache / "train" / f"{task}.jsonl", listed, order=task)
    unseen = list(drawn(sources, UNSEEN, often, cache / "heldout"))
    for task, listed in questions(unseen, often).items():
        if task == "emoji":
            # Every picture in English, one of eight in each other language.
            english = [row for row in listed if row["lang"] == "en"]
            listed = english + [
                row for number, row in enumerate(listed) if number % 8 == 0 and row not in english
            ]
            rows.write(cache / "heldout" / f"{task}.jsonl", listed, order=task)
        else:
            rows.write(cache / "heldout" / f"{task}.jsonl", listed, order=task, limit=600)
