"""transformers' `Gemma3nAudioEncoder` with the same weights, from samples to tokens: its feature
extractor, then the encoder. It has no stream. Settings: f32 and bf16.
"""

from __future__ import annotations

import importlib.util
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from matryo.train import importable

from ..case import Case, Options, Result
from ..processes import memory_of
from ..sound_clip import clip
from . import Unsupported

PREFIX = "model.audio_tower."


@dataclass
class State:
    options: Options
    model: Any = None
    extractor: Any = None


def available(options: Options) -> tuple[bool, str]:
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            return False, f"{package} is not installed"
    if not (options.models_path / "towers-hf").is_dir():
        return False, "no towers-hf in the models folder"
    return True, ""


def load(options: Options) -> State:
    import torch

    importable.install()
    torch.set_num_threads(options.threads)
    return State(options)


def prepare(state: State) -> None:
    import torch
    from safetensors import safe_open
    from transformers import Gemma3nAudioConfig, Gemma3nAudioEncoder, Gemma3nAudioFeatureExtractor

    if state.model is not None:
        return
    dtype = torch.bfloat16 if state.options.setting == "bf16" else torch.float32
    weights = {}
    for path in (state.options.models_path / "towers-hf").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                if name.startswith(PREFIX):
                    weights[name.removeprefix(PREFIX)] = file.get_tensor(name).to(dtype)
    model: Any = Gemma3nAudioEncoder(Gemma3nAudioConfig())
    model = model.to(dtype)
    model.load_state_dict(weights)
    state.model = model.eval()
    state.extractor = Gemma3nAudioFeatureExtractor()


def run(state: State, case: Case) -> Result:
    import torch

    if case.kind not in ("sound", "features"):
        raise Unsupported(f"transformers has no {case.kind}")
    prepare(state)
    samples = clip(case.prompt)
    with torch.inference_mode():
        started = time.perf_counter()
        found = state.extractor([samples], return_tensors="pt", max_length=len(samples) + 1)
        between = time.perf_counter()
        features = found["input_features"].to(state.model.dtype)
        outcome = state.model(features, ~found["input_features_mask"].bool())
        tokens = outcome.last_hidden_state if hasattr(outcome, "last_hidden_state") else outcome[0]
        ended = time.perf_counter()
    if case.kind == "features":
        np.savez(case.note, values=tokens[0].float().numpy())
    details: dict[str, float | str] = {"encoder_seconds": ended - between}
    return Result(ended - started, case.prompt, *memory_of(os.getpid()), details)


def close(state: State) -> None:
    state.model, state.extractor = None, None
