"""OpenVINO on the CPU, tuned for latency, on graphs that `picture_export` wrote.

Settings: f32; bf16, only where the processor has it; int8, onnxruntime's quantised graph; nncf,
OpenVINO's own. Both int8 graphs are run because either may be the faster one.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..case import Case, Options, Result
from ..machine import parse_cpuinfo
from ..picture_models import picture
from ..processes import memory_of
from . import Unsupported, onnxruntime_pictures
from .onnxruntime_pictures import found, graph
from .torch_pictures import rows, side_for, split

SUFFIX = {"f32": ".onnx", "bf16": ".onnx", "int8": "-int8.onnx", "nncf": "-nncf.xml"}
PRECISION = {"bf16": "bf16"}
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


@dataclass
class State:
    options: Options
    request: Any = None
    path: Path | None = None


def available(options: Options) -> tuple[bool, str]:
    can, reason = onnxruntime_pictures.available(options, "openvino")
    if can and split(options.setting)[1] == "bf16":
        _, flags = parse_cpuinfo(Path("/proc/cpuinfo").read_text())
        if not BF16_FLAGS & set(flags):
            return False, "this processor has no bf16 products"
    return can, reason


def load(options: Options) -> State:
    return State(options)


def prepare(state: State, side: int) -> Path:
    import openvino

    path = found(graph(state.options, side, SUFFIX))
    if state.path != path:
        state.request = None
        settings = {
            "INFERENCE_NUM_THREADS": state.options.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_PRECISION_HINT": PRECISION.get(split(state.options.setting)[1], "f32"),
        }
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(path), "CPU", settings)
        state.request = compiled.create_infer_request()
        state.path = path
    return path


def run(state: State, case: Case) -> Result:
    if case.kind not in ("picture", "features"):
        raise Unsupported(f"no {case.kind} case for pictures")
    side = side_for(split(state.options.setting)[0], case.prompt)
    path = prepare(state, side)
    pixels = picture(side)[None]
    started = time.perf_counter()
    features = state.request.infer([pixels])[0]
    seconds = time.perf_counter() - started
    if case.kind == "features":
        np.savez(case.note, values=rows(np.array(features)[0]))
    weights = path.with_suffix(".bin") if path.suffix == ".xml" else path
    details: dict[str, float | str] = {
        "weight_bytes": float(weights.stat().st_size), "side": float(side)
    }  # fmt: skip
    return Result(seconds, 1, *memory_of(os.getpid()), details)


def close(state: State) -> None:
    state.request = None
