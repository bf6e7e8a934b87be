"""A torchvision that was built for another torch, importable all the same.

transformers imports torchvision if it is there, and torchvision's Python files register fakes for
two operators of its compiled part; where that part does not fit the installed torch (a CPU build of
torch beside PyPI's torchvision), the import fails with "operator torchvision::nms does not exist"
and takes transformers with it. Declaring the operators is enough: Gemma 3n calls neither.
"""

from __future__ import annotations

from importlib.util import find_spec

OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[object] = []  # a library's declarations last as long as the object


def declare_operators() -> bool:
    """Declares what the import needs and nobody has declared; True if anything was. Call it before
    transformers is imported.
    """
    if _declared or find_spec("torchvision") is None:
        return False
    import torch

    try:
        import torchvision  # type: ignore[import-untyped]  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in OPERATORS:
            library.define(operator + _SIGNATURE)
        _declared.append(library)
    return bool(_declared)
