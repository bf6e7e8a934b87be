"""`matryo train`: a recipe into a model that holds every size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matryo.cli.options import JsonOption


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file.")],
    *,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Put a value over the recipe's, such as schedule.steps=100; may be repeated.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a nested model, or continue a run that was stopped.

    The same command continues: the numbers are those of a run that was never stopped. Needs the
    extra: pip install 'matryo[train]'.
    """
    from matryo.cli.extra import training
    from matryo.cli.outcome import reply
    from matryo.cli.output import write_json

    with training():
        from matryo.train.loop import main
        from matryo.train.recipe import Recipe
    report = main(Recipe.from_file(recipe, settings or []), say=reply)
    if json:
        write_json(
            {
                "steps": report.steps,
                "losses": dict(report.losses),
                "held_out": dict(report.held_out),
                "exported": [str(one.path) for one in report.exported],
            }
        )
