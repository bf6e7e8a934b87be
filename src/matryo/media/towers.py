"""The encoders of one checkpoint, each opened when it is first asked for.

In: configs, and functions that give the packed tensors of a tower. Out: `VisionEncoder`,
`AudioEncoder` and their embedders. Until then no byte of their files is mapped or read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from matryo import kernels
from matryo.checkpoint.towers import EMBEDDER_NORM, EMBEDDER_PROJECTION
from matryo.engine import Cancel
from matryo.errors import CancelledError, CheckpointError, InputError
from matryo.model.embedder import Embedder
from matryo.tower_config import AudioConfig, TowerConfig, VisionConfig

if TYPE_CHECKING:
    from matryo.model.audio import AudioEncoder
    from matryo.model.vision import VisionEncoder

Array = npt.NDArray[Any]

WORDS = {"vision": "pictures", "audio": "sound"}


@dataclass(frozen=True, slots=True)
class TowerFiles:
    """Where the tensors of one tower come from.

    read: gives them · path: the file that they are mapped from, None if they are packed in memory
    """

    read: Callable[[], Mapping[str, Array]]
    path: Path | None


class Towers:
    """Encoders and embedders, made once.

    hidden_size: of the language model · missing: tower -> the file that is not there
    """

    def __init__(
        self,
        config: TowerConfig,
        hidden_size: int,
        files: Mapping[str, TowerFiles],
        missing: Mapping[str, Path],
    ) -> None:
        self.config, self._hidden_size = config, hidden_size
        self._files, self._missing = dict(files), dict(missing)
        self._lock = threading.RLock()
        self._made: dict[str, tuple[Any, Embedder]] = {}
        self._tensors: dict[str, Mapping[str, Array]] = {}
        self._is_closed = False

    @property
    def present(self) -> tuple[str, ...]:
        """vision, audio: those whose tensors are at hand."""
        return tuple(tower for tower in WORDS if tower in self._files)

    @property
    def vision(self) -> VisionEncoder:
        """The encoder of pictures. Raises InputError if the checkpoint has none, CheckpointError if
        its file is missing or broken.
        """
        encoder: VisionEncoder = self._open("vision")[0]
        return encoder

    @property
    def audio(self) -> AudioEncoder:
        """The encoder of sound. Raises as `vision`."""
        encoder: AudioEncoder = self._open("audio")[0]
        return encoder

    def encoder(self, tower: str, cancel: Cancel | None = None) -> Any:
        """`vision` or `audio`; one that asks `cancel` before every operation and then raises
        CancelledError.
        """
        encoder = self._open(tower)[0]
        if cancel is None:
            return encoder
        return type(encoder)(encoder.config, encoder.weights, Stoppable(_ops(tower), cancel))

    def embedder(self, tower: str) -> Embedder:
        """The embedder of a tower. Raises as `vision`."""
        return self._open(tower)[1]

    def require(self, tower: str) -> VisionConfig | AudioConfig:
        """The config of a tower that can be opened. Raises as `vision`; reads no file."""
        if self._is_closed:
            raise InputError("this model was closed: load it again")
        config: VisionConfig | AudioConfig | None = getattr(self.config, tower)
        if tower in self._files and config is not None:
            return config
        if tower in self._missing:
            raise CheckpointError(
                f"the encoder of {WORDS[tower]} is missing: put the file back, or convert again",
                file=str(self._missing[tower]),
            )
        raise InputError(
            f"this checkpoint has no encoder of {WORDS[tower]}: leave them out, or load a "
            "multimodal Gemma 3n checkpoint"
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files of the towers that are at hand, opened or not."""
        return tuple(file.path for file in self._files.values() if file.path is not None)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Weights of opened towers in this process's own memory."""
        return tuple(
            array
            for tower, tensors in self._tensors.items()
            if self._files[tower].path is None
            for array in tensors.values()
        )

    def close(self) -> None:
        """Let go of everything; asking for an encoder afterwards raises InputError."""
        self._is_closed = True
        self._made, self._tensors = {}, {}

    def _open(self, tower: str) -> tuple[Any, Embedder]:
        with self._lock:
            config = self.require(tower)
            if tower not in self._made:
                tensors = self._files[tower].read()
                self._made[tower] = self._make(config, tensors)
                self._tensors[tower] = tensors
            return self._made[tower]

    def _make(
        self, config: VisionConfig | AudioConfig, tensors: Mapping[str, Array]
    ) -> tuple[Any, Embedder]:
        own = {EMBEDDER_NORM, EMBEDDER_PROJECTION}
        encoder_tensors = {name: array for name, array in tensors.items() if name not in own}
        is_vision = isinstance(config, VisionConfig)
        embedder = Embedder.of(
            tensors,
            kernels.Matrix,
            kernels,
            width=config.hidden_size,
            hidden_size=self._hidden_size,
            eps=config.eps,
            scale=config.hidden_size**0.5 if is_vision else 1.0,
        )
        return _encoder(config, encoder_tensors), embedder


class Stoppable:
    """A kernel library that asks before every operation whether to go on."""

    def __init__(self, ops: Any, cancel: Cancel) -> None:
        self._ops, self._cancel = ops, cancel

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._ops, name)
        if isinstance(operation, type) or not callable(operation):
            return operation

        def asked(*args: Any, **kwargs: Any) -> Any:
            if self._cancel.is_set():
                raise CancelledError("cancelled while pictures and sound were read")
            return operation(*args, **kwargs)

        return asked


def _ops(tower: str) -> Any:
    if tower == "vision":
        from matryo.model.vision_ops import native_ops

        return native_ops()
    from matryo.kernels import audio

    return audio


def _encoder(config: VisionConfig | AudioConfig, tensors: Mapping[str, Array]) -> Any:
    if isinstance(config, VisionConfig):
        from matryo.model.vision import VisionEncoder
        from matryo.model.vision_weights import vision_weights

        ops = _ops("vision")
        return VisionEncoder(config, vision_weights(config, tensors, ops.Filter), ops)
    from matryo.model.audio import AudioEncoder
    from matryo.model.audio_weights import build_audio_weights

    ops = _ops("audio")
    return AudioEncoder(config, build_audio_weights(config, tensors, ops.DenseMatrix), ops)
