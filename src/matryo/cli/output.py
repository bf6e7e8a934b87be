"""JSON and tables: what commands write when they are not streaming an answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matryo.cli.escape import escape_json, escape_name
from matryo.cli.outcome import CommandError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def write_json(document: Mapping[str, Any], *, indent: int | None = None) -> None:
    """One JSON document on stdout: one line, or indented if asked for."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=indent)
    sys.stdout.write(escape_json(text) + "\n")
    sys.stdout.flush()


def check_output(path: Path | None) -> None:
    """Raises CommandError, before the work, for an `--output` that cannot be written after it."""
    import tempfile

    if path is None:
        return
    if path.is_dir():
        raise CommandError(f"--output: expected the name of a file, got the directory {path}")
    if not path.parent.is_dir():
        raise CommandError(f"--output: no such directory: {path.parent}")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise CommandError(
            f"--output: nothing can be written in {path.parent}: {error.strerror}"
        ) from error


def console(*, stderr: bool = False) -> Console:
    """A rich console that never interprets markup or highlights values in what it is given."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def format_bytes(count: float) -> str:
    """`1.25 GB`; decimal units, as disks and memory bandwidth are counted everywhere in Matryo."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:.0f} B"


def format_count(count: float) -> str:
    """`1.91 B` parameters, `250 k` tokens."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def new_table(title: str) -> Table:
    """An empty table under a left-justified title, separated from what is above it."""
    from rich import box
    from rich.table import Table

    return Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )


def print_name(screen: Console, name: str) -> None:
    """One untrusted line, such as a path; folded, never cut."""
    screen.print(escape_name(name), soft_wrap=True)
