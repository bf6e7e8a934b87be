"""Matryo's sound encoder, from samples to tokens: whole (`model.audio.encode`) and while the sound
arrives (`model.audio.stream`).

Settings: f32 and q8, the kinds of the packed weights.
"""

from __future__ import annotations

import importlib.util
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..case import Case, Options, Result
from ..processes import memory_of
from ..sound_clip import RATE_HZ, clip
from . import Unsupported

TOKEN_SECONDS = 0.16


@dataclass
class State:
    options: Options
    model: Any = None


def available(options: Options) -> tuple[bool, str]:
    if importlib.util.find_spec("matryo") is None:
        return False, "matryo is not installed"
    path = options.models_path / f"towers-{options.setting}"
    return path.is_dir(), "" if path.is_dir() else f"no {path.name} in the models folder"


def load(options: Options) -> State:
    return State(options)


def encoder(state: State) -> Any:
    import matryo

    if state.model is None:
        setting = state.options.setting
        state.model = matryo.load(
            state.options.models_path / f"towers-{setting}", weights=setting,
            threads=state.options.threads,
        )  # fmt: skip
    return state.model.audio


def run(state: State, case: Case) -> Result:
    if case.kind == "stream":
        return live(state, case)
    if case.kind not in ("sound", "features"):
        raise Unsupported(f"no {case.kind} case for sound")
    audio = encoder(state)
    samples = clip(case.prompt)
    started = time.perf_counter()
    features = audio.encode(samples)
    seconds = time.perf_counter() - started
    if case.kind == "features":
        np.savez(case.note, values=features)
    return Result(seconds, case.prompt, *memory_of(os.getpid()))


def live(state: State, case: Case) -> Result:
    """Pieces arrive when they would from a microphone; a token's lag is counted from the end of the
    160 ms that it stands for.
    """
    stream = encoder(state).stream()
    samples = clip(case.prompt)
    size = RATE_HZ * case.generate // 1000
    lags: list[float] = []
    busy: list[float] = []
    started = time.perf_counter()
    for end in range(size, len(samples) + 1, size):
        wait = started + end / RATE_HZ - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        begin = time.perf_counter()
        tokens = stream.push(samples[end - size : end])
        now = time.perf_counter()
        if len(tokens):
            busy.append(now - begin)
        for _ in range(len(tokens)):
            lags.append(now - started - TOKEN_SECONDS * (len(lags) + 1))
    return Result(sum(busy), case.prompt, *memory_of(os.getpid()), milliseconds(lags, busy, stream))


def milliseconds(lags: list[float], busy: list[float], stream: Any) -> dict[str, float | str]:
    return {
        "first_token_ms": 1e3 * (lags[0] + TOKEN_SECONDS),
        "lag_median_ms": 1e3 * float(np.median(lags)),
        "lag_max_ms": 1e3 * max(lags),
        "work_median_ms": 1e3 * float(np.median(busy)),
        "work_max_ms": 1e3 * max(busy),
        "state_bytes": float(stream.num_bytes()),
        "tokens": float(len(lags)),
    }


def close(state: State) -> None:
    state.model = None
