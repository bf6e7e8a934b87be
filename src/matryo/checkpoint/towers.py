"""The encoders of a checkpoint as files of their own beside the shells.

In: an open `HuggingFaceSource`, the weights kind. Out: the tensors of `vision.safetensors` and
`audio.safetensors`: those of the encoder, and of the embedder that brings its features into the
language model (`embedder.norm` (C) float32, `embedder.projection` panel (d, C)). A text-only load
never opens these files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.pack import PackedTensor, Storable
from matryo.checkpoint.tower_source import TowerSource
from matryo.errors import CheckpointError

TOWERS = ("vision", "audio")
EMBEDDER_NORM, EMBEDDER_PROJECTION = "embedder.norm", "embedder.projection"
# Read once a feature, and every feature passes through it: 4 bits would save 2 MB.
PROJECTION_KIND: Mapping[str, str] = {"f32": "f32", "bf16": "bf16", "q8": "q8", "q4": "q8"}
# Elements from large to small behind the panels, so that every tensor is aligned to its own.
_ORDER = {"F32": 1, "I32": 1, "BF16": 2, "F16": 2, "I16": 2, "U8": 3, "I8": 3}


def file_name(tower: str) -> str:
    """The file of a tower in a packed directory."""
    return f"{tower}.safetensors"


def tower_tensors(source: HuggingFaceSource, weights: str) -> dict[str, list[Storable]]:
    """Tower -> its packed tensors, for the towers that config.json describes and the files hold.

    weights: f32, bf16, q8 or q4. Raises CheckpointError naming a tensor that is missing, unknown or
    misshapen.
    """
    found = {}
    for tower in TOWERS:
        if getattr(source.towers, tower) is not None and TowerSource(source, tower).shapes:
            tensors = [*_encoder(source, tower, weights), *_embedder(source, tower, weights)]
            _check_names(source, tensors)
            found[tower] = sorted(tensors, key=_place)
    for tower in TOWERS if found else ():
        # The table of hard ids needs both, and without it the ids around a picture mean nothing.
        TowerSource(source, f"embed_{tower}").full_name("embedding.weight")
    return found


def _encoder(source: HuggingFaceSource, tower: str, weights: str) -> list[Storable]:
    if tower == "vision" and source.towers.vision is not None:
        from matryo.checkpoint.vision_pack import vision_tensors

        return [*vision_tensors(TowerSource(source, "vision"), source.towers.vision, weights)]
    if source.towers.audio is None:
        return []
    from matryo.checkpoint.audio_pack import audio_tensors

    return [*audio_tensors(TowerSource(source, "audio"), source.towers.audio, weights)]


def _embedder(source: HuggingFaceSource, tower: str, weights: str) -> Iterator[Storable]:
    tensors = TowerSource(source, f"embed_{tower}")
    width = getattr(source.towers, tower).hidden_size
    hidden = source.config.hidden_size
    norm, projection = "soft_embedding_norm.weight", "embedding_projection.weight"
    tensors.check_shape(norm, (width,))
    tensors.check_shape(projection, (hidden, width))

    def rows(name: str) -> Any:
        return lambda first, last: tensors.read(name, slice(first, last))

    kind = PROJECTION_KIND[weights]
    yield PackedTensor(0, EMBEDDER_PROJECTION, kind, "panel", (hidden, width), rows(projection))
    yield PackedTensor(0, EMBEDDER_NORM, None, "", (width,), rows(norm))


def _place(tensor: Storable) -> int:
    if isinstance(tensor, PackedTensor) and tensor.layout == "panel":
        return 0
    return _ORDER[tensor.stored[0]]


def _check_names(source: HuggingFaceSource, tensors: list[Storable]) -> None:
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckpointError("is packed twice", file=str(source.directory), tensor=twice)
