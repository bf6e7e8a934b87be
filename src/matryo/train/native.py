"""The native operations of training, where there are any.

A file of its own, so that training goes on by torch's operations where the module is missing.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def fused_operations() -> Any:
    """`matryo.train.fused`; None where the compiled module is missing."""
    try:
        from matryo.train import fused
    except ImportError:
        return None
    return fused
