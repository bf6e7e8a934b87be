"""Makes torchvision importable beside a torch without it, as timm and transformers ask.

torchvision's Python files register fakes for operators that its compiled part defines; a build of
torch for CPUs has no such part. Declaring their signatures is enough: nothing here calls them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _Declaring:
    """Finds nothing; declares the operators when torchvision is about to be imported."""

    def __init__(self) -> None:
        self._library: Any = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision" and self._library is None:
            import torch

            if not hasattr(torch.ops.torchvision, "nms"):
                self._library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    self._library.define(operator + _SIGNATURE)
        return None


def install() -> None:
    """Once a process; torch is imported only when torchvision is."""
    if not any(isinstance(finder, _Declaring) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Declaring())
