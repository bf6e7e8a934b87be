"""Where Matryo keeps what it downloads, packs and remembers, and where models are looked for.

In: the environment and what a user wrote for a model. Out: directories. Nothing is created here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from matryo.errors import CheckpointError

EMBEDDED = Path(__file__).parent.parent / "data" / "nano"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def home_directory() -> Path:
    """MATRYO_HOME, or `~/.cache/matryo`."""
    chosen = os.environ.get("MATRYO_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "matryo"


def pulled_directory(name: str) -> Path:
    """Where `matryo pull ORG/NAME` puts a model.

    Raises CheckpointError if the name is not of that form.
    """
    if not _REPOSITORY.fullmatch(name):
        raise CheckpointError(f"{name!r} is not the name of a model; expected ORG/NAME")
    return home_directory() / "models" / name


def cached_directory(key: str) -> Path:
    """Where a big Hugging Face checkpoint is kept once it has been packed."""
    return home_directory() / "packed" / key


def find_directory(wanted: str | os.PathLike[str] | None) -> Path:
    """The directory of a model: the embedded one for None, a path, or the name of a pulled model.

    Raises CheckpointError if there is none.
    """
    if wanted is None:
        if not EMBEDDED.is_dir():
            raise CheckpointError(
                "the embedded model is missing from this installation: give the path of a model, "
                "or install matryo again",
                file=str(EMBEDDED),
            )
        return EMBEDDED
    text = os.fspath(wanted)
    if "\0" in text:
        raise CheckpointError(f"{text!r} is not a path")
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(
            "is a file; give the directory that holds config.json and the weights", file=text
        )
    if not _REPOSITORY.fullmatch(text):
        raise CheckpointError("no such directory", file=text)
    if not pulled_directory(text).is_dir():
        raise CheckpointError(
            f"no such directory, and no pulled model: run `matryo pull {text}` first", file=text
        )
    return pulled_directory(text)
