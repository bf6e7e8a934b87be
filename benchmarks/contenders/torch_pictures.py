"""timm's encoders in torch: eager in float32 or bf16, or compiled; with `sovit_`, SoViT-400M.

Pictures of SoViT have the size that Gemma 3 gives it where MobileNet-V5 has Gemma 3n's.
"""

from __future__ import annotations

import importlib.util
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..case import Case, Options, Result
from ..picture_models import GEMMA_SIDES, mobilenet, parameters, picture, sovit
from ..processes import memory_of
from . import Unsupported


@dataclass
class State:
    options: Options
    model: Any = None
    side: int = 0
    count: int = 0


def split(setting: str) -> tuple[str, str]:
    """sovit_bf16 -> (sovit, bf16); bf16 -> (mobilenet, bf16)."""
    model, _, kind = setting.rpartition("_")
    return model or "mobilenet", kind


def side_for(model: str, side: int) -> int:
    """The side of this encoder's pictures in a case: both at Gemma's, or both the same."""
    return GEMMA_SIDES[model] if side == GEMMA_SIDES["mobilenet"] else side


def available(options: Options) -> tuple[bool, str]:
    for package in ("torch", "timm"):
        if importlib.util.find_spec(package) is None:
            return False, f"{package} is not installed"
    if not (options.models_path / "towers-hf").is_dir():
        return False, "no towers-hf in the models folder"
    return True, ""


def load(options: Options) -> State:
    import torch

    torch.set_num_threads(options.threads)
    return State(options)


def prepare(state: State, side: int) -> None:
    import torch

    if state.model is not None and state.side == side:
        return
    model, kind = split(state.options.setting)
    state.model = None
    network = mobilenet(state.options.models_path) if model == "mobilenet" else sovit(side)
    state.count = parameters(network)
    if kind == "bf16":
        network = network.to(torch.bfloat16)
    state.model = torch.compile(network) if kind == "compiled" else network
    state.side = side


def run(state: State, case: Case) -> Result:
    import torch

    if case.kind not in ("picture", "features"):
        raise Unsupported(f"no {case.kind} case for pictures")
    model, kind = split(state.options.setting)
    side = side_for(model, case.prompt)
    with torch.inference_mode():
        prepare(state, side)
        pixels = torch.from_numpy(picture(side))[None]
        pixels = pixels.to(torch.bfloat16) if kind == "bf16" else pixels
        started = time.perf_counter()
        features = state.model(pixels)
        seconds = time.perf_counter() - started
    if case.kind == "features":
        np.savez(case.note, values=rows(features[0].float().numpy()))
    weight = 2 if kind == "bf16" else 4
    details: dict[str, float | str] = {
        "parameters": float(state.count), "weight_bytes": float(weight * state.count),
        "side": float(side),
    }  # fmt: skip
    return Result(seconds, 1, *memory_of(os.getpid()), details)


def rows(features: np.ndarray) -> np.ndarray:
    """One row a token: (C, h, w) of MobileNet-V5 or (tokens, C) of SoViT."""
    if features.ndim == 3:
        return features.reshape(len(features), -1).T
    return features


def close(state: State) -> None:
    state.model = None
