"""Files that a prompt comes with: pictures, sound, video.

In: paths and URLs as a user gives them, in order. Out: content items for a message, or one error
that names every file that cannot be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matryo.cli.outcome import CommandError

if TYPE_CHECKING:
    from matryo.loading import Model

AttachOption = Annotated[
    list[str] | None,
    typer.Option(
        "-a",
        "--attach",
        metavar="FILE|URL",
        help="A picture, sound or video that the prompt is about; may be repeated, the order is "
        "kept.",
        show_default=False,
    ),
]

TOWERS = {"image": ("vision",), "audio": ("audio",), "video": ("vision",)}
_NOUNS = {"image": "a picture", "audio": "sound", "video": "a video"}
_ENCODERS = {"vision": "vision", "audio": "audio"}


def read_attachments(model: Model, files: Sequence[str]) -> list[dict[str, Any]]:
    """A content item for each file, whose kind is told by its bytes.

    Raises CommandError, with a line for each file that cannot be read or that the model has no
    encoder for.
    """
    from matryo.errors import MatryoError

    items, problems = [], []
    for file in files:
        try:
            items.append(_item(model, file))
        except (CommandError, MatryoError) as error:
            text = str(error)
            problems.append(text if text.startswith(file) else f"{file}: {text}")
    if problems:
        some = f"{len(problems)} of {len(files)} attachments"
        which = "the attachment" if len(files) == 1 else some
        raise CommandError(f"{which} cannot be used:", problems)
    return items


def _item(model: Model, file: str) -> dict[str, Any]:
    from matryo.inputs.limits import DEFAULT_LIMITS
    from matryo.inputs.source import Source
    from matryo.media.parts import kind_of

    source = Source.of(file, allow_urls=True)
    kind = kind_of(source, DEFAULT_LIMITS)
    for tower in TOWERS[kind]:
        require_encoder(model, tower, f"it is {_NOUNS[kind]}, and ")
    item: dict[str, Any] = {"type": kind, kind: source}
    if kind == "video" and not has_encoder(model, "audio"):
        item["sound"] = False
    return item


def has_encoder(model: Model, tower: str) -> bool:
    """Whether the model has an encoder, vision or audio, with its weights at hand."""
    return tower in model.library.towers.present


def require_encoder(model: Model, tower: str, reason: str = "") -> None:
    """Raises CommandError that says what to do if the model has no encoder of that name."""
    if has_encoder(model, tower):
        return
    if getattr(model.towers, tower) is None:
        raise CommandError(
            f"{reason}{model.name} has no {_ENCODERS[tower]} encoder; use -m with a multimodal "
            "Gemma 3n checkpoint"
        )
    model.library.towers.require(tower)  # says which file is missing
