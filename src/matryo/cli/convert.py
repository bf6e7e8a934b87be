"""`matryo convert`: a Hugging Face directory into a packed one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matryo.cli.options import JsonOption, Weights


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A Hugging Face directory.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The packed directory to write.")],
    *,
    weights: Annotated[Weights, typer.Option(help="Kind of the packed weights.")] = Weights.Q4,
    json: JsonOption = False,
) -> None:
    """Pack a Hugging Face checkpoint: one file for each nested size, mapped without copying.

    Stopped at any moment it leaves nothing that loads; the same command then finishes the work.
    """
