"""One engine a file, each with the same four functions.

`available(options) -> (bool, reason)` without side effects; `load(options) -> State` prepares it
(weights may be read at the first case that needs them); `run(state, case) -> Result` does one
repetition; `close(state)` frees everything. A contender runs in a process of its own
(`benchmarks.worker`). Not available is a line in the report, not a failure. A name may end in a
setting, `engine:setting`, which `of` puts into the options.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

from ..case import Options

TITLES = {
    "ours": "Matryo",
    "llama_cpp": "llama.cpp",
    "llama_cpp_mix": "llama.cpp (default mix)",
    "transformers_cpu": "transformers",
    "openvino_genai": "OpenVINO GenAI",
    "our_pictures:f32": "Matryo f32",
    "our_pictures:int8": "Matryo int8",
    "torch_pictures:f32": "timm f32",
    "torch_pictures:bf16": "timm bf16",
    "torch_pictures:compiled": "timm f32, compiled",
    "onnxruntime_pictures:f32": "onnxruntime f32",
    "onnxruntime_pictures:int8": "onnxruntime int8",
    "openvino_pictures:f32": "OpenVINO f32",
    "openvino_pictures:bf16": "OpenVINO bf16",
    "openvino_pictures:int8": "OpenVINO int8, onnxruntime's graph",
    "openvino_pictures:nncf": "OpenVINO int8, NNCF's graph",
    "torch_pictures:sovit_f32": "timm f32, SoViT",
    "torch_pictures:sovit_bf16": "timm bf16, SoViT",
    "onnxruntime_pictures:sovit_f32": "onnxruntime f32, SoViT",
    "onnxruntime_pictures:sovit_int8": "onnxruntime int8, SoViT",
    "openvino_pictures:sovit_f32": "OpenVINO f32, SoViT",
    "openvino_pictures:sovit_bf16": "OpenVINO bf16, SoViT",
    "openvino_pictures:sovit_int8": "OpenVINO int8, SoViT, onnxruntime's graph",
    "openvino_pictures:sovit_nncf": "OpenVINO int8, SoViT, NNCF's graph",
    "our_sound:f32": "Matryo f32",
    "our_sound:q8": "Matryo q8",
    "transformers_sound:f32": "transformers f32",
    "transformers_sound:bf16": "transformers bf16",
    "training:matryo": "Matryo",
    "training:transformers": "transformers, eager",
}
NAMES = tuple(TITLES)


class Unsupported(Exception):
    """The contender cannot do this case; the report says so."""


def of(name: str, options: Options) -> tuple[Any, Options]:
    """The module of a contender, and the options with its setting."""
    engine, _, setting = name.partition(":")
    return importlib.import_module(f"benchmarks.contenders.{engine}"), replace(
        options, setting=setting
    )
