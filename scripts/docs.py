"""Write docs/cli.md from the help of every command; `--check` only says whether the file is fresh.

In: the program itself. Out: docs/cli.md, or exit code 1 and the command to run.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
WIDTH = 100

INTRODUCTION = """\
# Command line

<!-- Written by scripts/docs.py from `matryo --help`; edit the commands, not this file. -->

The answer, or JSON with `--json`, goes to stdout; everything else goes to stderr. Text on stdin is
put after the prompt; `-` as the prompt reads it from stdin alone. Exit codes: 0 success, 1 an error
(one `error:` line on stderr; the traceback only with `--debug`), 2 wrong usage, 130 interrupted
with Ctrl-C, 141 the reader of the output went away.

Control characters in an answer or a file name are shown as `\\x1b`, never sent to the terminal.
`--json` carries the exact text.

| variable | meaning |
|---|---|
| `MATRYO_HOME` | where models and the chat history live; `~/.cache/matryo` if unset |
| `MATRYO_THREADS` | worker threads; one a core if unset |
| `MATRYO_ISA` | the kernels to use, such as `scalar`; the best of this CPU if unset |
"""


def render() -> str:
    """Return the text of docs/cli.md."""
    # Read by the formatter when the help is made, so that every machine writes the same lines.
    os.environ.update(COLUMNS=str(WIDTH), NO_COLOR="1", TERM="dumb")
    from typer.testing import CliRunner

    from matryo.cli.app import app

    runner = CliRunner()
    parts = [INTRODUCTION]
    for name in (None, *(command.name for command in app.registered_commands)):
        arguments = [name, "--help"] if name else ["--help"]
        result = runner.invoke(app, arguments, prog_name="matryo", terminal_width=WIDTH)
        if result.exit_code:
            raise SystemExit(f"error: `matryo {' '.join(arguments)}` failed: {result.output}")
        lines = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        title = f"matryo {name}" if name else "matryo"
        parts.append(f"## `{title}`\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write or check the file; returns the exit code."""
    text = render()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print("error: docs/cli.md is not what the commands say; run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
