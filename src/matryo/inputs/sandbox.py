"""Running a jinja2 template that came with a download.

In: the template's text and plain values. Out: the rendered text, or an error of ours. Jinja2's own
sandbox keeps a template from reaching Python; this module also keeps it from eating the machine: it
may take so many steps, make texts so long, and use only the filters and methods that chat templates
use.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from types import FrameType, MethodType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from matryo.errors import CheckpointError, InputError

MAX_STEPS = 2_000_000
"""Executed template lines and calls: 10,000 messages take about a tenth of it."""
MAX_CHARACTERS = 16 << 20
"""Of the output and of every value on the way; the longest context of Gemma 3n has under a megabyte
of text.
"""
MAX_INTEGER_BITS = 256
"""Counters and indices need few; products of long numbers take minutes before they take memory."""

_ITEM_CHARACTERS = 64  # what a number or a list counts for: as much as looking at it costs

_FILTERS = (
    "abs capitalize count d default dictsort e escape first float int items join last length list "
    "lower map max min reject rejectattr replace reverse round safe select selectattr sort string "
    "title tojson trim unique upper"
).split()
_STRING_METHODS = (
    "capitalize count endswith find index isalnum isalpha isdigit isspace lower lstrip "
    "removeprefix removesuffix replace "
    "rfind rsplit rstrip split splitlines startswith strip title upper"
).split()
_MAPPING_METHODS = "get items keys values".split()
_SEQUENCE_METHODS = "count index".split()


class TemplateRefusal(Exception):
    """The template called `raise_exception`."""


class TemplateLimit(Exception):
    """The template does more than a chat template needs to."""


def compile_template(source: str, name: str) -> jinja2.Template:
    """Parse and compile. Raises CheckpointError if the source is not a template that may run."""
    environment = _Environment()
    try:
        tree = _BoundedConcat().visit(environment.parse(source))
        return environment.from_string(tree)
    except (jinja2.TemplateError, RecursionError, SyntaxError, ValueError) as error:
        raise CheckpointError(f"{name}: not a valid chat template: {error}") from error


def render_template(template: jinja2.Template, name: str, values: Mapping[str, Any]) -> str:
    """Run a compiled template. Raises InputError if it refuses the values, fails, or exceeds a
    limit.
    """
    try:
        return _run(template, values)
    except TemplateRefusal as error:
        raise InputError(f"{name} refuses this conversation: {error}") from None
    except TemplateLimit as error:
        raise InputError(f"{name} was stopped: {error}") from None
    except Exception as error:
        # Whatever a template manages to raise (undefined values, wrong types, recursion) is the
        # template's failure.
        raise InputError(
            f"{name} failed on this conversation: {type(error).__name__}: {error}"
        ) from error


def _run(template: jinja2.Template, values: Mapping[str, Any]) -> str:
    pieces: list[str] = []
    length = 0
    previous = sys.gettrace()
    sys.settrace(_step_counter(template, previous))
    try:
        for piece in template.generate(**values):
            length += len(piece)
            if length > MAX_CHARACTERS:
                raise TemplateLimit(f"its output is longer than {MAX_CHARACTERS} characters")
            pieces.append(piece)
    finally:
        sys.settrace(previous)
    return "".join(pieces)


def _step_counter(template: jinja2.Template, previous: Any) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that counts the lines a template executes; nothing else can interrupt an
    endless loop in it.
    """
    left = MAX_STEPS
    code_name = template.root_render_func.__code__.co_filename

    def in_template(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise TemplateLimit(f"it takes more than {MAX_STEPS} steps")
        return in_template

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename == code_name:
            return in_template(frame, event, argument)
        return previous(frame, event, argument) if previous is not None else None

    return on_call


class _BoundedConcat(NodeTransformer):
    """Turns `a ~ b` into a call that checks the length; jinja2 compiles it to something that cannot
    be intercepted.
    """

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        function = nodes.Name("matryo_concat", "load", lineno=node.lineno)
        return nodes.Call(function, node.nodes, [], None, None, lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox with a closed list of filters and methods and with bounded values."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        # Chat templates are written for these three options of transformers.
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        self.filters = {name: self.filters[name] for name in _FILTERS}
        self.filters.update(join=_join, replace=_replace, string=_text, tojson=_to_json)
        self.finalize = _printable
        self.globals = {
            "range": self.globals["range"],
            "dict": dict,
            "namespace": self.globals["namespace"],
            "raise_exception": _raise_exception,
            "matryo_concat": _concat,
        }

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, str):
            return attr in _STRING_METHODS
        if isinstance(obj, Mapping):
            return attr in _MAPPING_METHODS
        if isinstance(obj, (list, tuple)):
            return attr in _SEQUENCE_METHODS
        return not isinstance(obj, (bytes, int, float, set, frozenset))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise TemplateLimit("powers are not allowed")
        if operator == "%" and isinstance(left, str):
            raise TemplateLimit("text formatting is not allowed")
        if operator == "*":
            _check_length(_length(left) * _count(right), _length(right) * _count(left))
        if operator in "+*" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() + right.bit_length())
        if operator == "+":
            _check_length(_length(left) + _length(right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, *arguments: Any, **named: Any) -> Any:
        owner = function.__self__ if isinstance(function, MethodType) else _builtin_owner(function)
        if isinstance(owner, str) and function.__name__ == "replace":
            _replace(owner, *arguments, **named)
        return super().call(context, function, *arguments, **named)


def _builtin_owner(function: Any) -> Any:
    # `"text".replace` is a built-in method: not a MethodType, and its owner is in the same place.
    return function.__self__ if type(function).__name__ == "builtin_function_or_method" else None


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple)) else 0


def _count(value: Any) -> int:
    return max(value, 0) if isinstance(value, int) else 0


def _check_length(*lengths: int) -> None:
    if max(lengths) > MAX_CHARACTERS:
        raise TemplateLimit(f"it makes a value longer than {MAX_CHARACTERS}")


def _check_bits(bits: int) -> None:
    if bits > MAX_INTEGER_BITS:
        raise TemplateLimit(f"it makes a number of more than {MAX_INTEGER_BITS} bits")


def _text(value: Any) -> str:
    _check_size(value)
    return str(value)


def _printable(value: Any) -> Any:
    _check_size(value)
    return value


def _check_size(value: Any) -> None:
    """Lists may hold one another many times over: count what writing them out would take before
    doing it.
    """
    left, waiting = MAX_CHARACTERS, [value]
    while waiting:
        item = waiting.pop()
        left -= len(item) + 2 if isinstance(item, str) else _ITEM_CHARACTERS
        if left < 0:
            raise TemplateLimit(f"it writes out a value longer than {MAX_CHARACTERS}")
        if isinstance(item, (list, tuple)):
            waiting.extend(item)
        elif isinstance(item, Mapping):
            waiting.extend(item.keys())
            waiting.extend(item.values())


def _concat(*values: Any) -> str:
    texts = [_text(value) for value in values]
    _check_length(sum(map(len, texts)))
    return "".join(texts)


def _join(values: Any, separator: str = "", attribute: str | int | None = None) -> str:
    taken = [value[attribute] if attribute is not None else value for value in values]
    texts = [_text(value) for value in taken]
    _check_length(sum(map(len, texts)) + len(str(separator)) * len(texts))
    return str(separator).join(texts)


def _replace(text: Any, old: str, new: str, count: int = -1) -> str:
    whole, old, new = _text(text), _text(old), _text(new)
    _check_length(len(whole) + whole.count(old) * len(new))
    return whole.replace(old, new, count)


def _to_json(value: Any, indent: int | None = None) -> str:
    if indent is not None and not 0 <= indent <= 8:
        raise TemplateLimit("tojson indents by at most 8")
    _check_size(value)
    # transformers' templates expect plain JSON, not jinja2's HTML-safe one.
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    _check_length(len(text))
    return text


def _raise_exception(message: str) -> None:
    raise TemplateRefusal(message)
