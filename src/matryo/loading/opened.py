"""A checkpoint whose weights are at hand, and what its files say.

In: an open packed directory, or an open Hugging Face directory that is small enough to be packed in
memory. Out: `Opened`, which everything above asks instead of looking at files. Both ways give the
same weights, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from matryo import kernels
from matryo.checkpoint.beside import plans_beside
from matryo.checkpoint.convert import Conversion
from matryo.checkpoint.pack import Progress, pack_in_memory
from matryo.checkpoint.packed import PackedModel
from matryo.config import TextConfig
from matryo.errors import ConfigError, InputError, PlanError
from matryo.inputs.text_format import TextFormat, read_json_object
from matryo.media.encode import MediaEncoder
from matryo.media.library import IMAGE_SIZE, MediaLibrary
from matryo.media.towers import TowerFiles, Towers
from matryo.plan import Plan
from matryo.weights import TextWeights, build_weights, keep

if TYPE_CHECKING:
    from matryo.model.audio import AudioEncoder
    from matryo.model.vision import VisionEncoder

Array = npt.NDArray[Any]

MAX_IMAGE_SIZE = 4096
GENERATION_CONFIG = "generation_config.json"


@dataclass(slots=True, eq=False, kw_only=True)
class Opened:
    """One checkpoint, open.

    kind: of the weights, f32 bf16 q8 q4 · plans: by name, in no order · largest_plan: all that is
    at hand
    identity: of the weights, so that a saved session is not continued by others · files: mapped
    arrays: weights in this process's own memory · missing: files of shells that are not at hand
    tensors: names of all weights
    """

    name: str
    config: TextConfig
    kind: str
    plans: Mapping[str, Plan]
    largest_plan: Plan
    text: TextFormat
    generation_config: Mapping[str, Any]
    eos_ids: frozenset[int]
    identity: Mapping[str, str]
    files: tuple[Path, ...]
    arrays: tuple[Array, ...]
    missing: tuple[str, ...]
    tensors: tuple[str, ...]
    held: TextWeights | None
    towers: Towers
    image_size: int

    @property
    def vision(self) -> VisionEncoder:
        """The encoder of pictures, opened when it is first asked for. Raises InputError if the
        checkpoint has none, CheckpointError if its file is missing or broken.
        """
        return self.towers.vision

    @property
    def audio(self) -> AudioEncoder:
        """The encoder of sound. Raises as `vision`."""
        return self.towers.audio

    def library(self) -> MediaLibrary:
        """Pictures and sound as inputs of the language model. Raises InputError after `close`."""
        table = self.weights.multimodal
        encoder = MediaEncoder(self.towers, None if table is None else table[-1])
        return MediaLibrary(encoder, image_size=self.image_size)

    @property
    def weights(self) -> TextWeights:
        """The weights. Raises InputError after `close`."""
        if self.held is None:
            raise InputError("this model was closed: load it again")
        return self.held

    def check(self, plan: Plan) -> None:
        """Raises PlanError, naming the file, if the plan needs a shell that is not at hand."""
        try:
            self.weights.check(plan)
        except PlanError as error:
            if not self.missing:
                raise
            raise PlanError(f"{error} (not here: {', '.join(self.missing)})") from error

    def forget_pages(self) -> None:
        """Tell the system that no weight is needed in memory now; what is used is read again."""
        for name in self.tensors:
            self.weights.forget(name)

    def close(self) -> None:
        """Let go of the weights; the files are unmapped when nothing else refers to them."""
        self.held = None
        self.arrays = ()
        self.towers.close()


def open_packed(
    packed: PackedModel, *, context: int | None = None, beside: Path | None = None
) -> Opened:
    """A packed directory, mapped. `beside`: the directory with tokenizer and settings, if it is
    another one.

    Raises CheckpointError or ConfigError for anything in it that does not fit.
    """
    directory = beside or packed.directory
    return _opened(
        directory,
        config=_with_context(packed.config, context),
        kind=packed.weights,
        shells=packed.shells,
        tensors=packed.tensors(),
        identity=packed.identity,
        forget=packed.forget,
        files=tuple(file.path for file in packed.files),
        missing=tuple(entry.file for entry in packed.missing),
        towers=_packed_towers(packed),
    )


def _packed_towers(packed: PackedModel) -> Towers:
    """Towers of a packed directory; no file of theirs is opened."""
    paths = {name: packed.directory / entry.file for name, entry in packed.towers.items()}
    return Towers(
        packed.tower_config,
        packed.config.hidden_size,
        {
            name: TowerFiles(partial(packed.tower_tensors, name), path)
            for name, path in paths.items()
            if packed.has_tower(name)
        },
        {name: path for name, path in paths.items() if not packed.has_tower(name)},
    )


def open_in_memory(
    job: Conversion, *, context: int | None = None, progress: Progress | None = None
) -> Opened:
    """A Hugging Face directory, packed into this process's memory.

    Raises CheckpointError or ConfigError for anything in it that does not fit.
    """
    config = _with_context(job.source.config, context)
    tensors = pack_in_memory(job.tensors, progress)
    return _opened(
        job.source.directory,
        config=config,
        kind=job.weights,
        shells=tuple(job.shells.values()),
        tensors=tensors,
        identity=job.source.identity,
        arrays=tuple(tensors.values()),
        towers=Towers(
            job.source.towers,
            config.hidden_size,
            {
                name: TowerFiles(partial(pack_in_memory, tower), None)
                for name, tower in job.towers.items()
            },
            {},
        ),
    )


def _opened(
    directory: Path,
    *,
    config: TextConfig,
    kind: str,
    shells: tuple[Plan, ...],
    tensors: Mapping[str, Array],
    identity: str,
    towers: Towers,
    files: tuple[Path, ...] = (),
    arrays: tuple[Array, ...] = (),
    missing: tuple[str, ...] = (),
    forget: Callable[[str], None] = keep,
) -> Opened:
    generation_config = read_json_object(directory / GENERATION_CONFIG)
    return Opened(
        name=directory.resolve().name,
        config=config,
        kind=kind,
        plans=plans_beside(directory, config),
        largest_plan=shells[-1],
        text=TextFormat(directory, bos_id=config.bos_id),
        generation_config=generation_config,
        eos_ids=end_ids(generation_config, config),
        identity={"checkpoint": identity, "weights": kind},
        files=files,
        arrays=arrays,
        missing=missing,
        tensors=tuple(tensors),
        held=build_weights(config, tensors, shells, kernels.Matrix, forget),
        towers=towers,
        image_size=image_size(directory),
    )


def image_size(directory: Path) -> int:
    """The side to which the checkpoint's own processor makes pictures, 768 if no file says."""
    settings = read_json_object(directory / "preprocessor_config.json")
    if not settings:
        settings = read_json_object(directory / "processor_config.json").get("image_processor", {})
    size = settings.get("size") if isinstance(settings, dict) else None
    side = size.get("height") if isinstance(size, dict) else size
    if side is None:
        return IMAGE_SIZE
    if type(side) is not int or not 1 <= side <= MAX_IMAGE_SIZE:
        raise ConfigError(
            f"size of pictures in {directory} is {size!r:.80}; allowed: sides up to "
            f"{MAX_IMAGE_SIZE}"
        )
    return side


def end_ids(generation_config: Mapping[str, Any], config: TextConfig) -> frozenset[int]:
    """Ids that end an answer: generation_config.json's, or else config.json's.

    Raises ConfigError for ids there are not.
    """
    given = generation_config.get("eos_token_id")
    if given is None:
        return frozenset(config.eos_ids)
    ids = given if isinstance(given, list) else [given]
    for token in ids:
        if type(token) is not int or not 0 <= token < config.vocab_size:
            raise ConfigError(
                f"eos_token_id in {GENERATION_CONFIG} is {repr(given)[:80]}; "
                f"allowed: ids below {config.vocab_size}"
            )
    return frozenset(ids)


def _with_context(config: TextConfig, context: int | None) -> TextConfig:
    if context is None:
        return config
    if type(context) is not int or not 1 <= context <= config.context_length:
        raise ConfigError(
            f"context is {context!r}; allowed: 1 to {config.context_length}, the tokens that the "
            "checkpoint was made for"
        )
    return replace(config, context_length=context)
