"""The picture encoder of Gemma 3n beside that of Gemma 3, in the same engines."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case

TITLE = "Picture encoders of Gemma 3n and Gemma 3"
EXPLANATION = (
    "MobileNet-V5-300M beside SoViT-400M (SigLIP so400m, patches of 14), random weights. In the "
    "case of 768 px SoViT gets 896 px, the size at which Gemma 3 uses it; in the other both get "
    "the same."
)
OURS = ("our_pictures:f32", "our_pictures:int8")
RIVALS = {
    "openvino": (
        "openvino_pictures:f32", "openvino_pictures:int8", "openvino_pictures:sovit_f32",
        "openvino_pictures:sovit_bf16", "openvino_pictures:sovit_int8",
        "openvino_pictures:sovit_nncf",
    ),
    "onnxruntime": (
        "onnxruntime_pictures:f32", "onnxruntime_pictures:int8",
        "onnxruntime_pictures:sovit_f32", "onnxruntime_pictures:sovit_int8",
    ),
    "timm": (
        "torch_pictures:f32", "torch_pictures:bf16", "torch_pictures:sovit_f32",
        "torch_pictures:sovit_bf16",
    ),
}  # fmt: skip
CONTENDERS: tuple[str, ...] = (*OURS, *(name for names in RIVALS.values() for name in names))
ROUNDS = 2
FRESH = True
MOST: dict[str, int] = {}


def cases(sizes: Sequence[str]) -> list[Case]:
    """`sizes` are engines here."""
    return [Case("picture", size, prompt=side) for size in sizes for side in (768, 384)]
