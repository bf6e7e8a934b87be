"""Sessions of tiny random models without a checkpoint on disk: the parts of a `Runtime` put
together by hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from helpers.models import text_model
from helpers.text_files import CHAT_TEMPLATE, gemma_like
from matryo.engine import Engine
from matryo.inputs.text_format import TextFormat
from matryo.media.encode import MediaEncoder
from matryo.media.library import NO_TENSORS, MediaLibrary
from matryo.model import TextModel
from matryo.plan import Plan, find_plan, presets
from matryo.sampling import GEMMA_SAMPLING
from matryo.session import Session
from matryo.session.runtime import Runtime

EOS, BOS = 1, 2


def text_files(directory: Path) -> Path:
    """Writes Gemma-like tokenizer and chat template files."""
    (directory / "tokenizer.json").write_text(json.dumps(gemma_like()), encoding="utf-8")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return directory


def make_runtime(
    directory: Path,
    model: TextModel | None = None,
    *,
    chunk: int = 16,
    eos_ids: frozenset[int] = frozenset(),
    identity: Mapping[str, str] | None = None,
) -> Runtime:
    """A runtime over `model`, by default a small random one, with the text files of `directory`."""
    model = text_model() if model is None else model
    config, plans = model.config, presets(model.config)

    def find(wanted: str | Path | Plan) -> Plan:
        return (
            wanted.check(config)
            if isinstance(wanted, Plan)
            else find_plan(str(wanted), plans, config)
        )

    return Runtime(
        engine=Engine(model, chunk=chunk),
        text=TextFormat(directory, bos_id=BOS),
        plans=plans,
        find_plan=find,
        bos_id=BOS,
        eos_ids=eos_ids,
        suppressed=np.arange(config.ple_vocab_size, config.vocab_size),
        sampling=GEMMA_SAMPLING,
        kv_kind="f32",
        identity={"weights": "tiny"} if identity is None else identity,
        library=MediaLibrary(MediaEncoder(NO_TENSORS, None)),
    )


def new_session(runtime: Runtime, plan: str | Plan = "full", kv_kind: str | None = None) -> Session:
    return Session(runtime, runtime.find_plan(plan), kv_kind=kv_kind or runtime.kv_kind)
