"""How a command ends: exceptions become one line on stderr and an exit code.

0 success · 1 an error · 2 usage · 130 interrupted · 141 the reader of our output went away
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from matryo.cli.escape import escape_answer, escape_name

FAILED = 1
INTERRUPTED = 130
PIPE_CLOSED = 141


class CommandError(Exception):
    """A mistake that the option parser cannot see; the message is shown as it is, and below it
    `details`, one a line.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


def warn(message: str) -> None:
    """One `warning:` line on stderr."""
    print(f"warning: {escape_name(message)}", file=sys.stderr)


def reply(message: str) -> None:
    """What a command inside a chat says, on stderr; several lines stay several."""
    print(escape_answer(message), file=sys.stderr)


@contextmanager
def reporting(*, debug: bool) -> Iterator[None]:
    """Run a command's body; leave through `SystemExit` with the code and message of this module."""
    try:
        yield
        sys.stdout.flush()
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise  # typer's own ways to end, with their own messages
    except BrokenPipeError:
        _discard_stdout()
        raise SystemExit(PIPE_CLOSED) from None
    except KeyboardInterrupt:
        if debug:
            traceback.print_exc()
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(error_block(error), file=sys.stderr)
        raise SystemExit(FAILED) from None


def error_block(error: Exception) -> str:
    """`error: ` and one line, and more of them for an error with details."""
    details = error.details if isinstance(error, CommandError) else ()
    return "\n".join([f"error: {describe(error)}", *(f"  {escape_name(one)}" for one in details)])


def describe(error: Exception) -> str:
    """One line: our messages as they are, the system's with the file, the rest with their type."""
    from matryo.errors import MatryoError

    if isinstance(error, (MatryoError, CommandError)):
        return escape_name(error)
    if isinstance(error, MemoryError):
        return "out of memory; try a smaller --size, --context or --weights q4"
    if isinstance(error, OSError) and error.strerror:
        name = f": {escape_name(error.filename)}" if error.filename is not None else ""
        return f"{error.strerror}{name}"
    return (
        f"unexpected {type(error).__name__}: {escape_name(error)}; "
        "please report this with the output of the same command with --debug"
    )


def _discard_stdout() -> None:
    # The interpreter flushes stdout once more when it ends; without this it would complain about
    # the closed pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
