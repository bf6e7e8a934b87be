"""The end of a build: nothing held out was trained on, every file counted and hashed.

In: the rows of both splits. Out: `CACHE/manifest.json` (sources with licences, rows, hours of
speech), `CACHE/heldout.sha256` (every held-out file, as `sha256sum -c` reads it).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.nano.corpus import leaks, rows, sources

# The hashes of the held-out rows that figures are about.
EXPECTED = Path(__file__).with_name("heldout.sha256")
_LENGTH = re.compile(rb',"seconds":[0-9.]+')


def count(path: Path) -> dict[str, Any]:
    """What a file of rows holds."""
    listed = rows.read(path)
    languages = Counter(row.get("lang", "en") for row in listed)
    files = {file for row in listed for file in rows.media(row)}
    seconds = sum({row["messages"][0]["content"][0].get("audio"): row["seconds"]
                   for row in listed if "seconds" in row}.values())  # fmt: skip
    found = {"rows": len(listed), "languages": dict(sorted(languages.items()))}
    found |= {"media": len(files)} if files else {}
    return found | ({"hours": round(seconds / 3600, 2)} if seconds else {})


def finish(cache: Path, keys: Iterable[str], size: str) -> None:
    """Check, count and hash. SystemExit names what is in both splits."""
    files = {split: sorted((cache / split).glob("*.jsonl")) for split in ("train", "heldout")}
    listed = {split: [r for f in found for r in rows.read(f)] for split, found in files.items()}
    both = leaks.leaks(listed["train"], listed["heldout"])
    if both:
        raise SystemExit(f"{len(both)} things are in both splits: {'; '.join(both[:10])}")
    missing = [
        f"{split}/{file}"
        for split, found in listed.items()
        for row in found
        for file in rows.media(row)
        if not (cache / split / file).exists()
    ]
    if missing:
        raise SystemExit(f"{len(missing)} media are missing: {', '.join(missing[:10])}")
    manifest = {
        "size": size,
        "sources": sources.used(keys),
        "files": {f"{s}/{f.name}": count(f) for s, found in files.items() for f in found},
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (cache / "manifest.json").write_text(text, "utf-8")
    write_hashes(cache, listed["heldout"], files["heldout"])
    if size == "full":
        warn_of_changes(files["heldout"])


def write_hashes(cache: Path, listed: Iterable[rows.Row], files: Iterable[Path]) -> None:
    """Write heldout.sha256."""
    media = sorted({cache / "heldout" / file for row in listed for file in rows.media(row)})
    lines = [f"{sources.sha256(path)}  {path.relative_to(cache)}" for path in (*files, *media)]
    (cache / "heldout.sha256").write_text("\n".join(lines) + "\n", "utf-8")


def digest(path: Path) -> str:
    """Hash of what the rows of a file ask. How long a clip became is left out: a voice that a model
    computes is longer or shorter by a processor's rounding.
    """
    return hashlib.sha256(_LENGTH.sub(b"", path.read_bytes())).hexdigest()


def published() -> dict[str, str]:
    """Digests of the rows that published figures were measured on, by file."""
    lines = [line.split() for line in EXPECTED.read_text("utf-8").splitlines()]
    return {name: digest for digest, name in lines}


def warn_of_changes(files: Iterable[Path]) -> None:
    """Say which held-out rows are not the ones that published figures were measured on."""
    hashes = {f"heldout/{path.name}": digest(path) for path in files}
    expected = published()
    for name in sorted(set(expected) | set(hashes)):
        if expected.get(name) != hashes.get(name):
            print(f"note: {name} is not what published figures were measured on")
