"""One Gemma 3n checkpoint, every size, on the device you have.

In: a path to a checkpoint, or nothing for the embedded model. Out: `load` gives a `Model`; from
there `Model.session`, `Model.logits` and the rest. Names are imported when they are first used, so
that `import matryo` is cheap.

>>> import matryo
>>> model = matryo.load()
>>> session = model.session()
>>> answer = "".join(event.text for event in session.generate("The old house was", max_tokens=8))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matryo.elastic.ledger import Ledger, LedgerRow
    from matryo.engine import Embeddings
    from matryo.errors import (
        CancelledError,
        CapacityError,
        CheckpointError,
        ConfigError,
        InputError,
        KernelError,
        MatryoError,
        PlanError,
        ShapeError,
    )
    from matryo.inputs.voice import VoiceOptions
    from matryo.loading.load import load
    from matryo.loading.model import Model
    from matryo.media.encode import SoundTokens
    from matryo.plan import Plan
    from matryo.sampling import GREEDY, Sampling
    from matryo.session import Event, Session, Stats
    from matryo.speech.captions import Caption, CaptionEvent
    from matryo.speech.listen import listen
    from matryo.speech.transcribe import transcribe
    from matryo.video.watch import WatchEvent, WatchOptions, watch

__all__ = [
    "GREEDY",
    "CancelledError",
    "CapacityError",
    "Caption",
    "CaptionEvent",
    "CheckpointError",
    "ConfigError",
    "Embeddings",
    "Event",
    "InputError",
    "KernelError",
    "Ledger",
    "LedgerRow",
    "MatryoError",
    "Model",
    "Plan",
    "PlanError",
    "Sampling",
    "Session",
    "ShapeError",
    "SoundTokens",
    "Stats",
    "VoiceOptions",
    "WatchEvent",
    "WatchOptions",
    "listen",
    "load",
    "transcribe",
    "watch",
]

_HOME = {
    "matryo.elastic.ledger": ("Ledger", "LedgerRow"),
    "matryo.engine": ("Embeddings",),
    "matryo.loading": ("Model", "load"),
    "matryo.media.encode": ("SoundTokens",),
    "matryo.plan": ("Plan",),
    "matryo.sampling": ("GREEDY", "Sampling"),
    "matryo.session": ("Event", "Session", "Stats"),
    "matryo.inputs.voice": ("VoiceOptions",),
    "matryo.speech.captions": ("Caption", "CaptionEvent"),
    "matryo.speech.listen": ("listen",),
    "matryo.speech.transcribe": ("transcribe",),
    "matryo.video.watch": ("WatchEvent", "WatchOptions", "watch"),
    "matryo.errors": tuple(name for name in __all__ if name.endswith("Error")),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'matryo' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
