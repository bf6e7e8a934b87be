"""Typed front of the native operations of training: what lies between the products of a pass,
forward and backward.

In: C-contiguous float32 arrays (anything else is a TypeError or ValueError; nothing is converted or
copied). Gradients of weights are sums over tokens, one after the other in one array `sums`; the
order is in `native/blocks/training.h`. Their specification are the modules of transformers, whose
gradients torch derives; no value depends on the number of threads.
"""

from __future__ import annotations

from matryo import kernels  # noqa: F401  # says what to do if the native module is missing
from matryo._native import (
    rms_norm,
    training_correct_all,
    training_correct_all_grad,
    training_correct_first,
    training_correct_first_grad,
    training_gated,
    training_gated_grad,
    training_head,
    training_norm_grad,
    training_post_attention,
    training_post_attention_grad,
    training_predict,
    training_predict_grad,
    training_rotated,
    training_rotated_grad,
)

__all__ = [
    "rms_norm", "training_correct_all", "training_correct_all_grad", "training_correct_first",
    "training_correct_first_grad", "training_gated", "training_gated_grad", "training_head",
    "training_norm_grad", "training_post_attention", "training_post_attention_grad",
    "training_predict", "training_predict_grad", "training_rotated", "training_rotated_grad",
]  # fmt: skip
