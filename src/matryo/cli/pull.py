"""`matryo pull`: a checkpoint from the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

import typer

from matryo.cli.options import JsonOption


def pull(
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository on the hub.")],
    *,
    revision: Annotated[
        str | None,
        typer.Option(help="A branch, tag or commit.", show_default="the main branch"),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="An access token, for models that ask for one.",
            show_default="$HF_TOKEN, or what `hf auth login` stored",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Download a checkpoint; -m ORG/NAME then finds it.

    Only weights, settings, tokenizer and template are fetched, never code. What is there already
    is not fetched again; a download that was stopped continues.
    """
    from matryo.checkpoint.pull import pull as download
    from matryo.cli.outcome import reply
    from matryo.cli.output import write_json
    from matryo.cli.progress import Bar
    from matryo.loading.home import pulled_directory

    with Bar("Pulling", unit="bytes") as bar:
        target = download(
            name, pulled_directory(name), revision=revision, token=token, progress=bar
        )
    if json:
        write_json({"path": str(target)})
    else:
        reply(f"{name} is in {target}")
