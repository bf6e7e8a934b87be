"""`matryo convert`: a Hugging Face directory into a packed one, layer by layer.

In: a checkpoint directory, the kind of weights. Out: a packed directory: shells, config, text
files, plans, and the manifest, which is written last. It can be stopped at any moment: what it
leaves does not load, and the same call finishes it with the same bytes. Resident memory stays far
below 2 GB whatever the checkpoint's size: a block of one tensor at a time, source pages given back
when they have been read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from matryo.checkpoint.atomic import replace_text
from matryo.checkpoint.beside import CONFIG, PLANS, TEXT_FILES, copy_beside, plans_beside
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.pack import Storable, packed_tensors
from matryo.checkpoint.packed import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    Manifest,
    PackedModel,
    ShellEntry,
    TowerEntry,
    is_packed,
    read_manifest,
)
from matryo.checkpoint.towers import file_name, tower_tensors
from matryo.checkpoint.writing import (
    Progress,
    Written,
    own_directory,
    part_of,
    unfinished,
    write_tensors,
)
from matryo.config import GROUP
from matryo.errors import CheckpointError
from matryo.plan import Plan, shell_chain


def convert(
    source: Path,
    target: Path,
    weights: str,
    *,
    progress: Progress | None = None,
    wait: bool = False,
) -> Manifest:
    """Packs `source` into `target` as f32, bf16, q8 or q4, or finishes what an earlier call began.

    progress: called with (bytes done, bytes in all, tensor) · wait: for another process that writes
    the same, rather than refuse. Returns the manifest; at once if it is all there.
    Raises CheckpointError for a source that is broken or a target that holds something else,
    ConfigError for unknown weights or an unknown config, CapacityError if the disk is full.
    """
    job = Conversion(HuggingFaceSource(source), weights)
    with own_directory(target, wait=wait):
        if is_packed(target):
            return job.check_finished(target)
        with unfinished(target, job.key, job.num_bytes):
            return job.write(target, progress)


class Conversion:
    """What is to be written; nothing is until `write`."""

    def __init__(self, source: HuggingFaceSource, weights: str) -> None:
        """Raises CheckpointError if plans.json is broken, ConfigError if `weights` is unknown."""
        self.source, self.weights = source, weights
        self.shells = shell_chain(plans_beside(source.directory, source.config), source.config)
        self.tensors = packed_tensors(source, list(self.shells.values()), weights)
        self.towers = tower_tensors(source, weights)

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors, those of the towers included."""
        towers = sum(t.num_bytes for tensors in self.towers.values() for t in tensors)
        return sum(tensor.num_bytes for tensor in self.tensors) + towers

    @property
    def key(self) -> str:
        """Tells this conversion from every other one."""
        shells = [[name, plan.to_json()] for name, plan in self.shells.items()]
        parts = [FORMAT_VERSION, matryo_version(), self.source.identity, self.weights, shells]
        if self.towers:
            parts.append([*self.towers])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def check_finished(self, target: Path) -> Manifest:
        """The manifest of `target` if it is this conversion's.

        Raises CheckpointError if it holds anything else.
        """
        manifest = read_manifest(target)
        if manifest.source.get("key") != self.key:
            raise CheckpointError(
                "holds another packed model already: choose another directory, or delete it",
                file=str(target),
            )
        packed = PackedModel(target)
        missing = [entry.file for entry in packed.missing]
        missing += [entry.file for entry in manifest.towers if not packed.has_tower(entry.name)]
        if missing:
            raise CheckpointError(
                "was taken away after converting: delete the directory and convert again",
                file=str(target / missing[0]),
            )
        return manifest

    def write(self, target: Path, progress: Progress | None) -> Manifest:
        """Writes everything, the manifest last."""
        entries, done = [], 0
        for index, (name, plan) in enumerate(self.shells.items()):
            tensors = [tensor for tensor in self.tensors if tensor.shell == index]
            file = f"shell-{index}.safetensors"
            written = self._write_file(target / file, name, tensors, done, progress)
            entries.append(_entry(name, file, plan, written))
            done += sum(tensor.num_bytes for tensor in tensors)
        towers = []
        for name, tower in self.towers.items():
            file = file_name(name)
            written = self._write_file(target / file, name, tower, done, progress)
            towers.append(TowerEntry(name=name, file=file, **_figures(written)))
            done += sum(tensor.num_bytes for tensor in tower)
        copy_beside(self.source.directory, target, (*TEXT_FILES, PLANS, CONFIG))
        manifest = self._manifest(entries, towers)
        replace_text(target / MANIFEST, manifest.to_json())
        return manifest

    def _write_file(
        self,
        path: Path,
        name: str,
        tensors: Sequence[Storable],
        before: int,
        progress: Progress | None,
    ) -> Written:
        metadata = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "shell": name,
            "weights": self.weights,
        }
        return write_tensors(path, tensors, metadata, part_of(progress, before, self.num_bytes))

    def _manifest(self, entries: Sequence[ShellEntry], towers: Sequence[TowerEntry]) -> Manifest:
        source = {
            "name": self.source.directory.resolve().name,
            "identity": self.source.identity,
            "key": self.key,
        }
        return Manifest(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            matryo_version=matryo_version(),
            weights=self.weights,
            group=GROUP,
            source=source,
            shells=tuple(entries),
            towers=tuple(towers),
        )


def matryo_version() -> str:
    """The version of the installed package; "source" if it runs from a source directory."""
    try:
        return version("matryo")
    except PackageNotFoundError:
        return "source"


def _entry(name: str, file: str, plan: Plan, written: Written) -> ShellEntry:
    return ShellEntry(
        name=name,
        file=file,
        plan=plan.to_json(),
        **_figures(written),
    )


def _figures(written: Written) -> dict[str, Any]:
    return {
        "bytes": written.num_bytes,
        "sha256": written.sha256,
        "header_sha256": written.header_sha256,
    }
