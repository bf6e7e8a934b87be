"""`matryo unpack`: a packed directory back into a Hugging Face one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matryo.cli.options import JsonOption


def unpack(
    target: Annotated[Path, typer.Argument(metavar="DST", help="The directory to write.")],
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            metavar="PATH",
            help="A packed directory, as `matryo convert` writes it; the embedded model if "
            "omitted.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a packed model as a Hugging Face checkpoint, to train it further.

    The weights are float32, those that the engine computes with: what rounding took stays lost.
    Stopped at any moment it leaves nothing that loads; the same command then finishes the work.
    """
    from matryo.checkpoint.atomic import UNFINISHED
    from matryo.checkpoint.beside import CONFIG
    from matryo.checkpoint.packed import PackedModel, is_packed
    from matryo.checkpoint.unpack import unpack_checkpoint
    from matryo.cli.outcome import CommandError, reply
    from matryo.cli.output import format_bytes, write_json
    from matryo.cli.progress import Bar
    from matryo.loading.home import find_directory

    directory = find_directory(model)
    if not is_packed(directory):
        reason = "no packed model here"
        if (directory / UNFINISHED).exists():
            reason = "is unfinished: run the command that was writing it again"
        elif (directory / CONFIG).is_file():
            reason = "is a Hugging Face directory already"
        raise CommandError(f"{directory}: {reason}; expected what `matryo convert` wrote")
    source = PackedModel(directory)
    with Bar("Unpacking", unit="bytes") as bar:
        path = unpack_checkpoint(source, target, progress=bar)
    num_bytes = path.stat().st_size
    if json:
        write_json({"path": str(target), "from": source.weights, "bytes": num_bytes})
        return
    reply(f"{target}: float32 of {source.weights}, {format_bytes(num_bytes)}")
