"""Option groups become options, defaults stay, errors become one line and an exit code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from matryo.cli.command import command
from matryo.cli.outcome import FAILED, INTERRUPTED, CommandError


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    size: Annotated[str | None, typer.Option(help="A size.")] = None
    count: Annotated[int, typer.Option("-n", "--count", min=1)] = 3


def program(body: object) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)

    def body_of(
        name: Annotated[str | None, typer.Argument()] = None, *, group: Group, json: bool = False
    ) -> None:
        if isinstance(body, BaseException):
            raise body
        print(name, group.size, group.count, json)

    app.command()(command(body_of))
    return app


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ([], "None None 3 False"),
        (["x", "--size", "e2b", "-n", "5", "--json"], "x e2b 5 True"),
    ],
)
def test_groups_are_flattened_and_built(arguments: list[str], printed: str) -> None:
    result = CliRunner().invoke(program(None), arguments)
    assert result.stdout.strip() == printed
    assert result.exit_code == 0


def test_a_value_outside_an_option_is_usage() -> None:
    result = CliRunner().invoke(program(None), ["-n", "0"])
    assert result.exit_code == 2
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (CommandError("no \x1b[2Jway"), FAILED, "error: no \\x1b[2Jway\n"),
        (
            FileNotFoundError(2, "No such file or directory", "a\nb"),
            FAILED,
            "error: No such file or directory: a\\x0ab\n",
        ),
        (KeyboardInterrupt(), INTERRUPTED, ""),
    ],
)
def test_errors_are_one_line(error: BaseException, code: int, message: str) -> None:
    result = CliRunner().invoke(program(error))
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", message)


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(program(CommandError("broken")), ["--debug"])
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("error: broken\n")


def test_an_unexpected_error_says_how_to_report_it() -> None:
    result = CliRunner().invoke(program(ZeroDivisionError("by zero")))
    assert result.stderr.startswith("error: unexpected ZeroDivisionError: by zero; please report")
    assert result.exit_code == FAILED
