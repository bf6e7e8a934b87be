"""Whether anything that is held out was trained on.

In: the rows of both splits. Out: sentences that say what is in both: a question with its media, a
picture or clip, a transcript, a voice, a translated sentence.
"""

from __future__ import annotations

from collections.abc import Iterable

from scripts.nano.corpus import rows

# Rows of these tasks ask the same short question about different media.
SPOKEN = ("transcribe", "speech_translate")


def fingerprints(row: rows.Row) -> set[str]:
    """What of a row must not be in both splits."""
    found = {f"file {path}" for path in rows.media(row)}
    if "text" in row:
        return {f"text {row['text']}"}
    if not rows.media(row):
        found.add(f"question {' / '.join(rows.texts(row)[:-1])}")
    if row["task"] in SPOKEN:
        found.add(f"said {row['said']}")
        # The speakers of the recorded prompts are in both splits; another one is measured apart.
        if not row["voice"].startswith("recorded"):
            found.add(f"voice {row['voice']}")
    return found


def leaks(train: Iterable[rows.Row], held_out: Iterable[rows.Row]) -> list[str]:
    """What is in both splits."""
    trained = set().union(*map(fingerprints, train))
    secret = set().union(*map(fingerprints, held_out))
    return sorted(trained & secret)
