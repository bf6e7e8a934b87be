"""What is measured (`Case`) and what comes back (`Result`), both plain JSON objects between
processes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal[
    "prefill", "decode", "start", "memory", "switch", "sizes", "logits", "kernel", "picture",
    "sound", "stream", "features", "step",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One piece of work every contender does in the same way.

    prefill: `prompt` tokens into an empty cache, until the logits of the last one exist. decode:
    `generate` tokens, one after another, behind `context` cached tokens. start: a new process opens
    the checkpoint and gives the first token of a `prompt`-token prompt. memory: resident bytes
    while decoding behind `context` tokens. switch: our own change of size inside a session. sizes:
    our speed and memory at several sizes in one process. kernel: one native product. logits: for
    the agreement check. picture: one picture of `prompt` x `prompt` pixels becomes features. sound:
    `prompt` seconds of sound become features. stream: the same while the sound arrives, in pieces
    of `generate` milliseconds, in real time. features: those of a picture or sound (`size`) for the
    agreement check. step: one training step of a model with `size` sizes.
    """

    kind: Kind
    size: str
    prompt: int = 0
    generate: int = 0
    context: int = 0
    cold: bool = False
    """start: the checkpoint's pages are dropped from the page cache first."""
    note: str = ""
    """kernel: its name. logits, features: the path of the .npz to write."""

    @property
    def title(self) -> str:
        match self.kind:
            case "prefill":
                return f"{self.size} prefill {self.prompt}"
            case "decode":
                return f"{self.size} decode {self.generate} at {self.context}"
            case "start":
                start = "cold start" if self.cold else "warm start"
                return f"{self.size} {start} to first token of {self.prompt}"
            case "memory":
                return f"{self.size} resident at context {self.context}"
            case "switch":
                return f"{self.size} switch at {self.context}"
            case "sizes":
                return f"sizes at {self.context}"
            case "kernel":
                return f"{self.note} T={self.prompt}"
            case "logits":
                return f"{self.size} logits of {self.prompt}"
            case "picture":
                return f"{self.size} {self.prompt} px"
            case "sound":
                return f"sound of {self.prompt} s"
            case "stream":
                return f"stream of {self.prompt} s in pieces of {self.generate} ms"
            case "step":
                return f"step with {self.size} size{'s' * (self.size != 'one')}"
            case "features":
                return f"{self.size} features of {self.prompt}"


@dataclass(frozen=True)
class Result:
    """One repetition: `tokens` in `seconds`, with the memory of the process that did it."""

    seconds: float
    tokens: int = 0
    resident_bytes: int = 0
    peak_bytes: int = 0
    details: dict[str, float | str] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Tokens (pictures, seconds of sound) a second."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the checkpoints and programs are, and how many threads everybody gets."""

    models: str
    threads: int = 2
    rounds: int = 9
    weights: str = "q4"
    """Our packed kind; the others run the fastest file of theirs."""
    setting: str = ""
    """What follows the colon in a contender's name: how one engine is run."""
    ours: str = ""
    """Our checkpoint; empty = the first of e4b-q4, {size}-q4, {size}-hf inside `models`."""
    llama: str = ""
    """Folder with llama-bench and llama-perplexity; empty = search PATH."""
    llama_version: str = ""
    """Of those programs, for the report: a build outside a clone does not know its own."""

    @property
    def models_path(self) -> Path:
        return Path(self.models)
