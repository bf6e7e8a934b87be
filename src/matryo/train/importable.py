"""A torchvision that was built for another torch, importable all the same.

transformers and timm import torchvision if it is there, and torchvision's Python files register
fakes for two operators of its compiled part; where that part does not fit the installed torch (a
CPU build of torch beside PyPI's torchvision), the import fails with "operator torchvision::nms does
not exist" and takes transformers with it. Declaring the operators is enough: nothing here calls
them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[object] = []  # a library's declarations last as long as the object


class _Declaring:
    """Finds nothing; declares the operators when torchvision is about to be imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision" and not _declared:
            _declare()
        return None


def install() -> None:
    """Once a process, before transformers or timm; torch is imported only when torchvision is."""
    if not any(isinstance(finder, _Declaring) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Declaring())


def _declare() -> None:
    import torch

    spec = PathFinder.find_spec("torchvision")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for compiled in Path(folder).glob("_C*.so"):
            try:
                torch.ops.load_library(str(compiled))
            except (ImportError, OSError):  # for another torch; torchvision goes on without it
                continue
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in OPERATORS:
            library.define(operator + _SIGNATURE)
        _declared.append(library)
