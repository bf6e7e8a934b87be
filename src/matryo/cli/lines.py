"""Lines that a person types: editing, history, completion of commands, continuation.

In: the keyboard. Out: one message at a time. The history is a file in MATRYO_HOME.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matryo.cli.outcome import warn

PROMPT, CONTINUED = "> ", "… "
HISTORY_LINES = 1000


def read_lines(commands: Sequence[str]) -> Iterator[str]:
    """Yield what is typed until Ctrl-D; Ctrl-C drops the line and asks again."""
    with _editing(commands):
        while True:
            try:
                text = _read_message()
            except KeyboardInterrupt:
                print()
                continue
            except EOFError:
                print()
                return
            if text:
                yield text


def _read_message() -> str:
    line = input(PROMPT)
    parts = []
    while line.endswith("\\"):
        parts.append(line[:-1])
        line = input(CONTINUED)
    return "\n".join([*parts, line]).strip()


@contextmanager
def _editing(commands: Sequence[str]) -> Iterator[None]:
    """Line editing with a history that outlives the program; plain input without readline."""
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    path = history_path()
    if path.exists():
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    readline.set_completer_delims(" ")
    readline.set_completer(lambda text, state: complete(commands, text, state))
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
        except OSError as error:
            warn(f"the history was not saved: {error}")


def complete(commands: Sequence[str], text: str, state: int) -> str | None:
    """The `state`-th command that begins with `text`, as readline asks for it."""
    found = [name for name in commands if name.startswith(text)] if text.startswith("/") else []
    return found[state] if state < len(found) else None


def history_path() -> Path:
    """Where typed lines are kept."""
    from matryo.loading import home_directory

    return home_directory() / "history"
