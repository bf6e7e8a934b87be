"""The tensors of one encoder of a Hugging Face directory, by their names below it.

In: an open `HuggingFaceSource`. Out: `TowerSource`: names such as `conformer.0.norm.weight`, their
shapes, rows as float32. Both spellings of the prefix (`model.vision_tower.`, `vision_tower.`) are
one and the same; what the tensors mean is for those to say who pack them.
"""

from __future__ import annotations

from collections.abc import Mapping

from matryo.checkpoint.huggingface import F32, HuggingFaceSource
from matryo.errors import CheckpointError

PREFIXES: Mapping[str, str] = {
    "vision": "vision_tower.timm_model.",
    "audio": "audio_tower.",
    "embed_vision": "embed_vision.",
    "embed_audio": "embed_audio.",
}


class TowerSource:
    """Tensors under one prefix; empty if the checkpoint has none."""

    def __init__(self, source: HuggingFaceSource, part: str) -> None:
        """part: vision, audio, embed_vision or embed_audio.

        Raises CheckpointError if a tensor is there under two spellings.
        """
        self.part, self._source = part, source
        self._names: dict[str, str] = {}
        for full in source.others:
            for spelling in ("model.", ""):
                prefix = spelling + PREFIXES[part]
                name = full.removeprefix(prefix)
                if name == full:
                    continue
                if name in self._names:
                    raise CheckpointError(
                        f"is also stored as {self._names[name]}",
                        file=str(source.directory), tensor=full,
                    )  # fmt: skip
                self._names[name] = full
                break
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: source.bits(full).shape for name, full in self._names.items()
        }

    def read(self, name: str, rows: slice = slice(None)) -> F32:
        """Rows of a tensor as float32, copied.

        Raises CheckpointError if there is no such tensor, if its numbers are not floats, or if one
        is not finite.
        """
        return self._source.read_other(self.full_name(name), rows)

    def forget(self, name: str, rows: slice = slice(None)) -> None:
        """Lets the system drop the pages of rows already read."""
        self._source.forget_other(self.full_name(name), rows)

    def full_name(self, name: str) -> str:
        """The name in the file. Raises CheckpointError if there is no such tensor."""
        try:
            return self._names[name]
        except KeyError:
            raise CheckpointError(
                "tensor is missing",
                file=str(self._source.directory), tensor=f"model.{PREFIXES[self.part]}{name}",
            ) from None  # fmt: skip

    def checked(self, name: str, shape: tuple[int | None, ...]) -> F32:
        """A whole tensor as float32. Raises CheckpointError as `read` and `check_shape`."""
        self.check_shape(name, shape)
        return self.read(name)

    def check_shape(self, name: str, shape: tuple[int | None, ...]) -> None:
        """Raises CheckpointError if a tensor is missing or of another shape; None in `shape` = any
        size from 1.
        """
        full, got = self.full_name(name), self.shapes[name]
        fits = len(got) == len(shape) and all(
            want in (None, size) for want, size in zip(shape, got, strict=True)
        )
        if not fits or 0 in got:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise CheckpointError(
                "wrong shape",
                file=str(self._source.file_of(full).path), tensor=full,
                expected=f"({wanted})", got=str(got),
            )  # fmt: skip
