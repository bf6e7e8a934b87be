"""Models and tokenizers of transformers from files; every weight is one that the files hold.

In: a Hugging Face directory or a GGUF file. Out: a float32 model, a tokenizer; whatever is wrong
with the files as a CheckpointError. transformers alone draws random values for a tensor that is
missing or of another shape, and mentions it in a log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.utils import logging

from matryo.errors import CheckpointError

TIMM = "pip install --no-deps timm==1.0.31 torchvision==0.28.0"  # what both encoders need
_REPAIR = "fetch the files again, or correct config.json"
_SHOWN = 3  # names in a message


def read_model(kind: Any, source: Path, *, absent: tuple[str, ...] = ()) -> Any:
    """The model at `source` in float32; kind: the class of transformers that opens it.

    absent: how names begin that the files need not have
    Raises CheckpointError if they cannot be read, or lack a tensor, or have one of another shape.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with _translated(source):
        model, found = kind.from_pretrained(
            _place(source),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            **_options(source),
        )
    missing = [name for name in found["missing_keys"] if not name.startswith(absent)]
    if missing:
        raise CheckpointError(
            f"lacks {_some(missing)}, which the model of its config.json has; {_REPAIR}",
            file=str(source),
        )
    for name, got, expected in sorted(found["mismatched_keys"]):
        raise CheckpointError(
            f"is of another shape than config.json says; {_REPAIR}",
            file=str(source), tensor=name, expected=str(tuple(expected)), got=str(tuple(got)),
        )  # fmt: skip
    return model


def read_tokenizer(source: Path) -> Any:
    """The tokenizer at `source`. Raises CheckpointError."""
    with _translated(source):
        return AutoTokenizer.from_pretrained(_place(source), **_options(source))


def needed(error: ImportError) -> str:
    """What to install; transformers' own lines bring another torch along."""
    text = str(error)
    if "timm" in text or "torchvision" in text:
        return f"needs timm and torchvision for pictures: {TIMM}"
    if "gguf" in text.lower():
        return "needs gguf: pip install 'matryo[train]'"
    short = " ".join(text.split())[:300]
    return f"needs {error.name}: pip install {error.name}" if error.name else f"needs more: {short}"


def _is_gguf(source: Path) -> bool:
    return source.suffix == ".gguf"


def _place(source: Path) -> Path:
    return source.parent if _is_gguf(source) else source


def _options(source: Path) -> dict[str, Any]:
    return {"gguf_file": source.name} if _is_gguf(source) else {}


@contextmanager
def _translated(source: Path) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise CheckpointError(needed(error), file=str(source)) from error
    except Exception as error:  # whatever a broken file makes its readers raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CheckpointError(
            f"transformers cannot open it: {reason}; {_REPAIR}", file=str(source)
        ) from error


def _some(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} tensors more" if more > 0 else shown
