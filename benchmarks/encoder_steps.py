"""Steps that measure the encoders; `everything` runs them with the others.

Agreement comes first: a figure of an engine that computes something else is worth nothing.
"""

from __future__ import annotations

from .step import Step
from .suites import picture, sound, sovit, stream

SOVIT = {engine: (*sovit.OURS, *names) for engine, names in sovit.RIVALS.items()}
SOVIT_TORCH = (*sovit.OURS, "torch_pictures:f32", "torch_pictures:sovit_f32")  # bf16 is emulated
OPENVINO = (*picture.OURS, *picture.RIVALS["openvino"])
ORT = (*picture.OURS, *picture.RIVALS["onnxruntime"])
TORCH = (*picture.OURS, "torch_pictures:f32")
COMPILED = (*picture.OURS, "torch_pictures:compiled")

STEPS = (
    Step("agreement-pictures", "encoder_agreement", ("picture-256",), (*ORT, *OPENVINO), 1, 120,
         quiet=False),
    Step("agreement-pictures-large", "encoder_agreement", ("picture-512", "picture-768"),
         picture.OURS, 1, 120, quiet=False),
    Step("agreement-sovit", "encoder_agreement", ("sovit",), sovit.CONTENDERS, 1, 200,
         quiet=False),
    Step("agreement-sound", "encoder_agreement", ("sound",), sound.CONTENDERS, 1, 90, quiet=False),
    Step("picture-openvino-768", "picture", ("openvino",), OPENVINO, 4, 300, "768"),
    Step("picture-openvino-512", "picture", ("openvino",), OPENVINO, 5, 200, "512"),
    Step("picture-openvino-256", "picture", ("openvino",), OPENVINO, 5, 80, "256"),
    Step("picture-onnxruntime-768", "picture", ("onnxruntime",), ORT, 2, 150, "768"),
    Step("picture-onnxruntime-512", "picture", ("onnxruntime",), ORT, 5, 150, "512"),
    Step("picture-onnxruntime-256", "picture", ("onnxruntime",), ORT, 7, 100, "256"),
    Step("picture-timm-768", "picture", ("timm",), TORCH, 2, 130, "768"),
    Step("picture-timm-512", "picture", ("timm",), TORCH, 5, 120, "512"),
    Step("picture-timm-256", "picture", ("timm",), TORCH, 7, 90, "256"),
    Step("picture-compiled-768", "picture", ("compiled",), COMPILED, 2, 240, "768"),
    Step("picture-compiled-512", "picture", ("compiled",), COMPILED, 3, 200, "512"),
    Step("picture-compiled-256", "picture", ("compiled",), COMPILED, 3, 160, "256"),
    Step("sound-5", "sound", (), sound.CONTENDERS[:3], 5, 120, "of 5 s"),
    Step("sound-30", "sound", (), sound.CONTENDERS[:3], 3, 180, "30"),
    Step("sound-120", "sound", (), sound.CONTENDERS[:2], 2, 100, "120"),
    Step("stream", "stream", (), stream.CONTENDERS, 1, 170),
    Step("sovit-openvino", "sovit", ("openvino",), SOVIT["openvino"], 1, 260, "768"),
    Step("sovit-onnxruntime", "sovit", ("onnxruntime",), SOVIT["onnxruntime"], 1, 230, "768"),
    Step("sovit-timm", "sovit", ("timm",), SOVIT_TORCH, 1, 190, "768"),
    Step("sovit-openvino-384", "sovit", ("openvino",), SOVIT["openvino"], 3, 200, "384"),
)  # fmt: skip
