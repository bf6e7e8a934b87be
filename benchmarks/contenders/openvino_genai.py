"""OpenVINO GenAI (`LLMPipeline` on the CPU) on a 4-bit export of the checkpoint, made by
`openvino_export`.

Its rounds compute their context again, because the pipeline does not hand out its cache; so decode
rates come from the times between its own tokens, and long contexts are left out.
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
from . import Unsupported

LONGEST_CONTEXT = 2048


@dataclass
class State:
    options: Options
    pipeline: Any = None
    size: str = ""


def available(options: Options) -> tuple[bool, str]:
    if importlib.util.find_spec("openvino_genai") is None:
        return False, "openvino-genai is not installed"
    if not list(options.models_path.glob("*-openvino/openvino_model.xml")):
        return (
            False,
            "no *-openvino folder in the models folder (see benchmarks/openvino_export.py)",
        )
    return True, ""


def load(options: Options) -> State:
    return State(options)


def prepare(state: State, size: str) -> None:
    import openvino_genai

    if state.pipeline is not None and state.size == size:
        return
    path = state.options.models_path / f"{size}-openvino"
    if not path.is_dir():
        raise Unsupported(f"no folder {path.name}")
    state.pipeline = openvino_genai.LLMPipeline(
        str(path), "CPU", INFERENCE_NUM_THREADS=state.options.threads
    )
    state.size = size


def generate(state: State, prompt: int, tokens: int) -> Any:
    """Greedy tokens behind a random prompt; the pipeline's result."""
    import openvino
    import openvino_genai

    ids = np.random.default_rng(prompt).integers(200, 262144, (1, prompt)).astype(np.int64)
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = tokens
    config.ignore_eos = True
    config.do_sample = False
    config.apply_chat_template = False
    inputs = openvino_genai.TokenizedInputs(
        openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids))
    )
    return state.pipeline.generate(inputs, config)


def run(state: State, case: Case) -> Result:
    if case.kind not in ("prefill", "decode", "memory"):
        raise Unsupported(f"no {case.kind} case for OpenVINO GenAI")
    if max(case.context, case.prompt) > LONGEST_CONTEXT:
        raise Unsupported(f"a context of {case.context} would be computed again in every round")
    prepare(state, case.size)
    if case.kind == "prefill":
        started = time.perf_counter()
        generate(state, case.prompt, 1)
        seconds, tokens = time.perf_counter() - started, case.prompt
    else:
        # Times between its own tokens, the first one apart: that is the prompt.
        raw = generate(state, case.context, case.generate + 1).perf_metrics.raw_metrics
        seconds, tokens = sum(raw.m_durations[-case.generate :]) / 1e6, case.generate
    resident, peak = memory_of(os.getpid())
    return Result(seconds, tokens, resident, peak)


def close(state: State) -> None:
    state.pipeline = None
