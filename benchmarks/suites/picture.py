"""One picture through the encoder of Gemma 3n, at three sizes, ours beside one engine at a time."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case

TITLE = "Picture encoder"
EXPLANATION = (
    "MobileNet-V5-300M, full-size random weights, one picture from pixels to 256 features. Each "
    "engine is measured in rounds with ours (first word of the case), because all of them together "
    "would not fit into memory. Matryo int8 is the packed q8 file, which keeps some filters in "
    "int16 (pictures.md). Peak includes what an engine needs to prepare its graph."
)
SIDES = (256, 512, 768)
OURS = ("our_pictures:f32", "our_pictures:int8")
RIVALS = {
    "openvino": (
        "openvino_pictures:f32", "openvino_pictures:bf16", "openvino_pictures:int8",
        "openvino_pictures:nncf",
    ),
    "onnxruntime": ("onnxruntime_pictures:f32", "onnxruntime_pictures:int8"),
    "timm": ("torch_pictures:f32", "torch_pictures:bf16"),
    "compiled": ("torch_pictures:compiled",),
}  # fmt: skip
CONTENDERS: tuple[str, ...] = (*OURS, *(name for names in RIVALS.values() for name in names))
ROUNDS = 5
FRESH = True
MOST: dict[str, int] = {"torch_pictures:bf16": 0}


def cases(sizes: Sequence[str]) -> list[Case]:
    """`sizes` are engines here."""
    return [Case("picture", size, prompt=side) for size in sizes for side in SIDES]
