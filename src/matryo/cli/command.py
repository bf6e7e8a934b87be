"""A typer command from a function whose parameters may be option groups.

In: a function with parameters that typer understands, or that are frozen dataclasses of such fields
(`SamplingOptions`, …). Out: a function for `app.command` with one parameter an option, that builds
the groups, and reports errors as `outcome` says. Every command gains `--debug`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from matryo.cli.outcome import reporting

DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Flatten the option groups of `function` and run it under `reporting`."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {
        name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)
    }
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in groups:
            parameters.extend(_fields(groups[parameter.name]))
        else:
            parameters.append(_keyword(parameter, hints[parameter.name]))
    parameters.append(DEBUG)

    @functools.wraps(function)
    def run(**values: Any) -> None:
        with reporting(debug=values.pop("debug")):
            for name, group in groups.items():
                fields = {field.name: values.pop(field.name) for field in dataclasses.fields(group)}
                values[name] = group(**fields)
            function(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__wrapped__
    return run


def _keyword(parameter: inspect.Parameter, annotation: object) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=annotation)


def _fields(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field),
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty
