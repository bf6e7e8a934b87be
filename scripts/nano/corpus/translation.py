"""Translation among five languages: sentences of the grammar, and names of emoji.

In: the grammar, the CLDR names. Out: `train/translate.jsonl`, `heldout/translate.jsonl` and
`sentences.jsonl`, the meanings with their split, which speech is made of. A meaning whose English
has a certain hash is held out in every language and direction.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from scripts.nano.corpus import cldr, grammar, rows
from scripts.nano.corpus.languages import LANGUAGES, NAMES
from scripts.nano.corpus.phrases import Texts

MEANINGS = 48_000  # distinct ones, held-out ones included
DIRECTIONS = 3  # of the twenty, for each training meaning
HELD_OUT_ROWS = 1_000


def meanings(number: int, seed: int = 0) -> list[Texts]:
    """So many distinct meanings. None shares a sentence in any language with another, so that no
    translation of a held-out one is trained.
    """
    rng = rows.generator("grammar", seed)
    seen: set[str] = set()
    found: list[Texts] = []
    for _ in range(20 * number):
        if len(found) == number:
            break
        texts = grammar.make(rng)
        said = {f"{language} {words}" for language, words in texts.items()}
        if not said & seen:
            seen |= said
            found.append(texts)
    return found


def is_held_out(texts: Texts) -> bool:
    """Whether the meaning is kept for measuring."""
    return rows.is_held_out("meaning", texts["en"])


def translation(texts: Texts, source: str, target: str, task: str = "translate") -> rows.Row:
    """A request to translate, and the translation."""
    prompt = f"Translate to {NAMES[target]}: {texts[source]}"
    return rows.chat(task, target, prompt, texts[target], source=source)


def directions(texts: Texts, number: int, task: str = "translate") -> Iterator[rows.Row]:
    """Some directions of one meaning; more often from or to English."""
    rng = rows.generator(texts["en"], 2)
    english = [p for p in itertools.permutations(LANGUAGES, 2) if "en" in p]
    other = [p for p in itertools.permutations(LANGUAGES, 2) if "en" not in p]
    chosen = rng.sample(english, (2 * number + 2) // 3)
    chosen += rng.sample(other, number - len(chosen))
    for source, target in chosen:
        yield translation(texts, source, target, task)


def build(sources: Path, cache: Path, limit: int) -> None:
    """Write the rows; of `limit` meanings if not 0."""
    found = meanings(limit or MEANINGS)
    trained = [texts for texts in found if not is_held_out(texts)]
    secret = [texts for texts in found if is_held_out(texts)]
    rows.write(
        cache / "sentences.jsonl",
        ({"held_out": is_held_out(texts), "texts": texts} for texts in found),
    )
    listed = [row for texts in trained for row in directions(texts, DIRECTIONS)]
    names = cldr.read(sources).values()
    for concept in list(names)[: limit or None]:
        if not rows.is_held_out("name", concept.name["en"]):
            listed += directions(concept.name, DIRECTIONS, "translate_name")
    rows.write(cache / "train" / "translate.jsonl", listed, order="translate")
    # Every direction as often as any other.
    pairs = itertools.cycle(itertools.permutations(LANGUAGES, 2))
    held = [translation(texts, *pair) for texts, pair in zip(secret, pairs, strict=False)]
    rows.write(cache / "heldout" / "translate.jsonl", held, "translate", HELD_OUT_ROWS)
