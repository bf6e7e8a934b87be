"""Matryo's picture encoder as `model.vision.encode`, from pixels to features.

Settings: f32 (`towers-f32`) and int8 (`towers-q8`: weights int8 per output channel, activations
int8 per pixel).
"""

from __future__ import annotations

import importlib.util
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..case import Case, Options, Result
from ..picture_models import picture
from ..processes import memory_of
from . import Unsupported

PACKED = {"f32": "f32", "int8": "q8"}


@dataclass
class State:
    options: Options
    model: Any = None


def checkpoint(options: Options) -> tuple[Path, str]:
    """The packed directory and the kind of its weights."""
    weights = PACKED[options.setting]
    return options.models_path / f"towers-{weights}", weights


def available(options: Options) -> tuple[bool, str]:
    if importlib.util.find_spec("matryo") is None:
        return False, "matryo is not installed"
    path, _ = checkpoint(options)
    return path.is_dir(), "" if path.is_dir() else f"no {path.name} in the models folder"


def load(options: Options) -> State:
    return State(options)


def run(state: State, case: Case) -> Result:
    import matryo

    if case.kind not in ("picture", "features"):
        raise Unsupported(f"no {case.kind} case for pictures")
    if state.model is None:
        path, weights = checkpoint(state.options)
        state.model = matryo.load(path, weights=weights, threads=state.options.threads)
    encoder = state.model.vision
    pixels = picture(case.prompt)
    started = time.perf_counter()
    features = encoder.encode(pixels)
    seconds = time.perf_counter() - started
    if case.kind == "features":
        np.savez(case.note, values=features)
    return Result(seconds, 1, *memory_of(os.getpid()))


def close(state: State) -> None:
    state.model = None
