"""`matryo slice`: one size of a checkpoint, as a checkpoint of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matryo.cli.options import JsonOption


def slice_checkpoint(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC", help="A Hugging Face directory, a packed one, or a pulled model."
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The directory to write.")],
    *,
    size: Annotated[
        str,
        typer.Option(
            "--size",
            "--plan",
            metavar="SIZE",
            help="What to cut out: a preset such as e2b, a plan as plan.json, or table.csv:ROW.",
        ),
    ],
    json: JsonOption = False,
) -> None:
    """Cut one size out of a checkpoint: Hugging Face to Hugging Face, packed to packed.

    No weight is rounded again. Stopped at any moment it leaves nothing that loads; the same command
    then finishes the work.
    """
    from matryo.checkpoint.beside import plans_beside
    from matryo.checkpoint.huggingface import HuggingFaceSource
    from matryo.checkpoint.packed import PackedModel, is_packed
    from matryo.checkpoint.slice import slice_checkpoint as cut
    from matryo.checkpoint.slice_dense import DenseCheckpoint, find_width, is_dense, slice_dense
    from matryo.checkpoint.slice_packed import slice_packed
    from matryo.cli.outcome import reply
    from matryo.cli.output import format_bytes, write_json
    from matryo.cli.progress import Bar
    from matryo.loading.home import find_directory
    from matryo.plan import find_plan

    directory = find_directory(source)
    if not is_packed(directory) and is_dense(directory):
        dense = DenseCheckpoint.open(directory)
        width = find_width(dense, size)
        with Bar("Slicing", unit="bytes") as bar:
            files = slice_dense(dense, width, target, progress=bar)
        shape: dict[str, object] = {"ffn_width": width}
        described = f"FFN {width}; for transformers: `matryo run` runs Gemma 3n only"
    else:
        checkpoint = (
            PackedModel(directory) if is_packed(directory) else HuggingFaceSource(directory)
        )
        plan = find_plan(size, plans_beside(directory, checkpoint.config), checkpoint.config)
        with Bar("Slicing", unit="bytes") as bar:
            if isinstance(checkpoint, PackedModel):
                files = slice_packed(checkpoint, plan, target, progress=bar)
            else:
                files = cut(checkpoint, plan, target, progress=bar)
        shape, described = {**plan.to_json()}, plan.describe()
    num_bytes = sum(file.stat().st_size for file in files)
    if json:
        names = [file.name for file in files]
        write_json({"path": str(target), "plan": shape, "files": names, "bytes": num_bytes})
        return
    reply(f"{target}: {described}, {format_bytes(num_bytes)}")
