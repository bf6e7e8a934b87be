"""Imports follow the data flow of docs/architecture.md and never come back."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import matryo

PACKAGE = Path(matryo.__file__).parent

NATIVE = "matryo._native"  # compiled: a module without a Python file

# Lowest first; a module may import from its own line and from the lines above it.
LAYERS = (
    ("matryo.errors", NATIVE),
    ("matryo.config", "matryo.config_section", "matryo.tower_config"),
    ("matryo.vision_structure",),
    ("matryo.checkpoint.atomic",),
    ("matryo.kernels",),
    ("matryo.quantize",),
    ("matryo.plan",),
    ("matryo.checkpoint.safetensors", "matryo.checkpoint.text_tensors"),
    ("matryo.checkpoint.huggingface",),
    ("matryo.checkpoint",),
    ("matryo.weights",),
    ("matryo.inputs.mel",),
    ("matryo.model",),
    ("matryo.sampling", "matryo.inputs"),
    ("matryo.engine",),
    ("matryo.media",),
    ("matryo.elastic",),
    ("matryo.session",),
    ("matryo.pipeline",),
    ("matryo.speech", "matryo.video"),
    ("matryo.loading",),
    ("matryo.evaluate",),
    ("matryo.search",),
    ("matryo.train",),
    ("matryo",),
    ("matryo.cli",),
    ("matryo.__main__",),
)
MAX_LINES = 500  # the anchors of style rarely pass it; a file that does wants to be two


def module_name(path: Path) -> str:
    parts = ("matryo", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module of ours that is imported, inside functions too; not for type checking."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "matryo"
        ):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES or full == NATIVE else node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "matryo")
        else:
            yield from imports(node)


GRAPH = {
    name: sorted(set(imports(ast.parse(path.read_text(encoding="utf-8")))) - {name})
    for name, path in MODULES.items()
}


def rank(module: str) -> int:
    """The line of LAYERS with the longest matching prefix."""
    matches = [
        (len(prefix), number)
        for number, line in enumerate(LAYERS)
        for prefix in line
        if module == prefix or (prefix != "matryo" and module.startswith(prefix + "."))
    ]
    if not matches:
        raise AssertionError(f"{module} has no place in LAYERS")
    return max(matches)[1]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_below(module: str) -> None:
    assert [other for other in GRAPH[module] if rank(other) > rank(module)] == []


def test_there_are_no_cycles() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in GRAPH.get(module, ()):
                visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_file_says_what_it_is_and_stays_readable(module: str) -> None:
    source = MODULES[module].read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), (
        "a module docstring says what goes in and what comes out"
    )
    assert len(source.splitlines()) <= MAX_LINES


def test_torch_is_imported_by_training_alone() -> None:
    for module, path in MODULES.items():
        if module.startswith("matryo.train."):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"torch", "transformers"}, path
