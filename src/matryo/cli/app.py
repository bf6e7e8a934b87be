"""The `matryo` program: its commands. Nothing heavy is imported before one of them runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from matryo.cli.bench import bench
from matryo.cli.bench_video import bench_video
from matryo.cli.calibrate import calibrate
from matryo.cli.chat import chat
from matryo.cli.command import command
from matryo.cli.convert import convert
from matryo.cli.demo import demo
from matryo.cli.elasticize import elasticize
from matryo.cli.eval import evaluate_model
from matryo.cli.info import info
from matryo.cli.listen import listen
from matryo.cli.pull import pull
from matryo.cli.run import run
from matryo.cli.search import search_sizes
from matryo.cli.slice import slice_checkpoint
from matryo.cli.train import train
from matryo.cli.transcribe import transcribe
from matryo.cli.unpack import unpack
from matryo.cli.watch import watch


class TwoWords(TyperGroup):
    """Commands of one word, which may have a name of two words beside them: `bench video`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The longer name wins."""
        two = " ".join(args[:2])
        if len(args) > 1 and two in self.commands:
            return two, self.commands[two], args[2:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="matryo",
    cls=TwoWords,
    help="One Gemma 3n checkpoint, every size, on the device you have.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "chat": chat,
    "transcribe": transcribe,
    "listen": listen,
    "watch": watch,
    "pull": pull,
    "convert": convert,
    "slice": slice_checkpoint,
    "unpack": unpack,
    "train": train,
    "elasticize": elasticize,
    "info": info,
    "eval": evaluate_model,
    "search": search_sizes,
    "calibrate": calibrate,
    "bench": bench,
    "bench video": bench_video,
    "demo": demo,
}
for name, function in COMMANDS.items():
    app.command(name)(command(function))


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"matryo {version('matryo')}")
        except PackageNotFoundError:
            print("matryo, run from its sources without being installed")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of the program itself; `--version` acts in its callback."""


def main() -> None:
    """Entry point of `matryo` and `python -m matryo`."""
    # A terminal that cannot show a character gets its code instead of a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="matryo")
