"""What `matryo` exports exists, is documented, and is described in docs/python-api.md."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import matryo

DOCUMENT = Path(__file__).parents[2] / "docs" / "python-api.md"


@pytest.mark.parametrize("name", sorted(matryo.__all__))
def test_a_public_name_has_a_docstring_and_a_place_in_the_documentation(name: str) -> None:
    value = getattr(matryo, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        assert inspect.getdoc(value)
    assert f"`{name}" in DOCUMENT.read_text(encoding="utf-8").replace("matryo.", "")


@pytest.mark.parametrize("name", sorted(matryo.__all__))
def test_public_methods_have_docstrings(name: str) -> None:
    value = getattr(matryo, name)
    if not inspect.isclass(value):
        return
    undocumented = [
        attribute
        for attribute, member in vars(value).items()
        if not attribute.startswith("_")
        and (inspect.isroutine(member) or isinstance(member, property))
        and not inspect.getdoc(member)
    ]
    assert undocumented == []
