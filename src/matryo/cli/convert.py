"""`matryo convert`: a Hugging Face directory into a packed one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matryo.cli.options import JsonOption, Weights


def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A Hugging Face directory, or a pulled model.")
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The packed directory to write.")],
    *,
    weights: Annotated[Weights, typer.Option(help="Kind of the packed weights.")] = Weights.Q4,
    json: JsonOption = False,
) -> None:
    """Pack a Hugging Face checkpoint: one file for each nested size, mapped without copying.

    Stopped at any moment it leaves nothing that loads; the same command then finishes the work.
    """
    from matryo.checkpoint.convert import convert as pack
    from matryo.cli.outcome import reply
    from matryo.cli.output import format_bytes, write_json
    from matryo.cli.progress import Bar
    from matryo.loading.home import find_directory

    with Bar("Converting", unit="bytes") as bar:
        manifest = pack(find_directory(source), target, weights.value, progress=bar)
    if json:
        shells = [{"name": s.name, "file": s.file, "bytes": s.bytes} for s in manifest.shells]
        write_json({"path": str(target), "weights": manifest.weights, "shells": shells})
        return
    sizes = ", ".join(f"{shell.name} {format_bytes(shell.bytes)}" for shell in manifest.shells)
    reply(f"{target}: {manifest.weights}, {sizes}")
