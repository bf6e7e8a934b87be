"""onnxruntime on the CPU, on graphs that `picture_export` wrote: float32 and static int8."""

from __future__ import annotations

import importlib.util
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..case import Case, Options, Result
from ..picture_export import INPUT
from ..picture_models import picture
from ..processes import memory_of
from . import Unsupported
from .torch_pictures import rows, side_for, split

SUFFIX = {"f32": ".onnx", "int8": "-int8.onnx"}


@dataclass
class State:
    options: Options
    session: Any = None
    path: Path | None = None


def graph(options: Options, side: int, suffixes: dict[str, str]) -> Path:
    model, kind = split(options.setting)
    return options.models_path / "pictures" / f"{model}-{side}{suffixes[kind]}"


def available(options: Options, package: str = "onnxruntime") -> tuple[bool, str]:
    if importlib.util.find_spec(package) is None:
        return False, f"{package} is not installed"
    if not list((options.models_path / "pictures").glob("*.onnx")):
        return False, "no graphs in the models folder (see benchmarks/picture_export.py)"
    return True, ""


def load(options: Options) -> State:
    return State(options)


def found(path: Path) -> Path:
    if not path.exists():
        raise Unsupported(f"no {path.name}: see benchmarks/picture_export.py")
    return path


def prepare(state: State, side: int) -> Path:
    import onnxruntime

    path = found(graph(state.options, side, SUFFIX))
    if state.path != path:
        state.session = None
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = state.options.threads
        state.session = onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"]
        )
        state.path = path
    return path


def run(state: State, case: Case) -> Result:
    if case.kind not in ("picture", "features"):
        raise Unsupported(f"no {case.kind} case for pictures")
    side = side_for(split(state.options.setting)[0], case.prompt)
    path = prepare(state, side)
    pixels = picture(side)[None]
    started = time.perf_counter()
    (features,) = state.session.run(None, {INPUT: pixels})
    seconds = time.perf_counter() - started
    if case.kind == "features":
        np.savez(case.note, values=rows(features[0]))
    details: dict[str, float | str] = {
        "weight_bytes": float(path.stat().st_size), "side": float(side)
    }  # fmt: skip
    return Result(seconds, 1, *memory_of(os.getpid()), details)


def close(state: State) -> None:
    state.session = None
