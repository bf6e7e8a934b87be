"""A packed model: a directory of one safetensors file a shell and a manifest.

In: a directory that `convert` wrote. Out: `PackedModel`: zero-copy arrays by name, the shells that
are present, and what the manifest says. Opening checks sizes and headers; `verify` reads every byte
and compares checksums. The first shell alone is a working model; outer shells may be added or taken
away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy.typing as npt

from matryo.checkpoint.safetensors import SafetensorsFile
from matryo.config import GROUP, TextConfig
from matryo.errors import CheckpointError, PlanError
from matryo.plan import Plan
from matryo.quantize import WEIGHTS
from matryo.tower_config import NO_TOWERS, TowerConfig

Array = npt.NDArray[Any]
Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, what

MANIFEST = "matryo.json"
FORMAT, FORMAT_VERSION = "matryo-packed", 1
_MAX_MANIFEST_BYTES = 16 << 20
_HASH_BLOCK = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellEntry:
    """One file of a packed model, as the manifest describes it."""

    name: str
    file: str
    bytes: int
    sha256: str
    header_sha256: str
    plan: dict[str, list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerEntry:
    """The file of an encoder (vision, audio), as the manifest describes it."""

    name: str
    file: str
    bytes: int
    sha256: str
    header_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`matryo.json`; `towers` is left out where there are none.

    `source` tells where the weights came from: free text for people, an identity for programs.
    """

    format: str
    format_version: int
    matryo_version: str
    weights: str
    group: int
    source: dict[str, str]
    shells: tuple[ShellEntry, ...]
    towers: tuple[TowerEntry, ...] = ()

    def to_json(self) -> str:
        document = asdict(self)
        if not self.towers:
            del document["towers"]
        return json.dumps(document, indent=1) + "\n"


class PackedModel:
    """An open packed directory.

    Raises CheckpointError naming the file (and tensor) that does not fit.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest = read_manifest(directory)
        self.config = TextConfig.from_file(directory / "config.json")
        present = [entry for entry in self.manifest.shells if (directory / entry.file).exists()]
        if self.manifest.shells[0] not in present:
            raise CheckpointError(
                "the first shell is missing", file=str(directory / self.manifest.shells[0].file)
            )
        chain = list(self.manifest.shells[: len(present)])
        if present != chain:
            missing = next(entry for entry in self.manifest.shells if entry not in present)
            raise CheckpointError(
                f"an inner shell is missing; add it, or take {present[-1].file} away",
                file=str(directory / missing.file),
            )
        self.entries = tuple(chain)
        self.missing = tuple(entry for entry in self.manifest.shells if entry not in present)
        self.shells = tuple(self._plan(entry) for entry in self.manifest.shells)[: len(chain)]
        self._check_nesting()
        self.files = tuple(_open_file(directory, entry) for entry in chain)
        self.towers = {entry.name: entry for entry in self.manifest.towers}

    @property
    def weights(self) -> str:
        return self.manifest.weights

    @property
    def identity(self) -> str:
        """A hash that changes with any weight or the config, without reading the weights."""
        config = (self.directory / "config.json").read_bytes()
        parts = [
            hashlib.sha256(config).hexdigest(),
            *(entry.sha256 for entry in self.manifest.shells),
            *(entry.sha256 for entry in self.manifest.towers),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def tensors(self) -> dict[str, Array]:
        """Packed tensors by name: read-only views of the mapped files."""
        found: dict[str, Array] = {}
        for file in self.files:
            for name, array in _arrays(file).items():
                if name in found:
                    raise CheckpointError(
                        "tensor is in two shells", file=str(file.path), tensor=name
                    )
                found[name] = array
        return found

    def array(self, arrays: Mapping[str, Array], name: str) -> Array:
        """One of these arrays. Raises CheckpointError if there is no such tensor."""
        try:
            return arrays[name]
        except KeyError:
            raise CheckpointError("no such tensor", file=str(self.directory), tensor=name) from None

    def ple_tables(self) -> dict[str, list[int]]:
        """Tables of per-layer embeddings, and the layers whose slots lie side by side in each."""
        tables: dict[str, list[int]] = {}
        seen: set[int] = set()
        for number, shell in enumerate(self.shells):
            if added := [layer for layer in shell.layers if layer not in seen]:
                tables[f"ple.{number}"] = added
            seen.update(added)
        return tables

    def forget(self, name: str) -> None:
        """Tells the system that tensor `name` of a shell is not needed in memory now; it stays
        readable.
        """
        for file in self.files:
            if name in file.tensors:
                file.forget(name)

    @property
    def tower_config(self) -> TowerConfig:
        """Shapes of the encoders that were packed. Raises ConfigError if config.json is broken."""
        if not self.towers:
            return NO_TOWERS
        whole = TowerConfig.from_file(self.directory / "config.json")
        return TowerConfig(
            vision=whole.vision if "vision" in self.towers else None,
            audio=whole.audio if "audio" in self.towers else None,
        )

    def tower_tensors(self, tower: str) -> dict[str, Array]:
        """Packed tensors of an encoder, whose file is mapped by this call.

        Raises CheckpointError if the file is not there or not the manifest's.
        """
        return _arrays(self.open_tower(tower))

    def open_tower(self, tower: str) -> SafetensorsFile:
        """The file of an encoder. Raises CheckpointError as `tower_tensors` does."""
        return _open_file(self.directory, self.towers[tower])

    def has_tower(self, tower: str) -> bool:
        """Whether the file of an encoder is there."""
        return tower in self.towers and (self.directory / self.towers[tower].file).exists()

    def verify(self, progress: Progress | None = None) -> None:
        """Reads every byte.

        Raises CheckpointError naming the first file whose checksum is not the manifest's.
        """
        towers = [entry for entry in self.manifest.towers if self.has_tower(entry.name)]
        entries: list[ShellEntry | TowerEntry] = [*self.entries, *towers]
        total = sum(entry.bytes for entry in entries)
        done = 0
        for entry in entries:
            report = None if progress is None else _offset(progress, done, total, entry.file)
            got = hash_file(self.directory / entry.file, report)
            if got != entry.sha256:
                raise CheckpointError(
                    "damaged: convert or copy it again",
                    file=str(self.directory / entry.file), expected=entry.sha256, got=got,
                )  # fmt: skip
            done += entry.bytes

    def _check_nesting(self) -> None:
        for number in range(1, len(self.shells)):
            if not self.shells[number].contains(self.shells[number - 1]):
                inner, outer = (self.entries[n].name for n in (number - 1, number))
                raise CheckpointError(
                    f"shell {outer!r} does not contain shell {inner!r}",
                    file=str(self.directory / MANIFEST),
                )

    def _plan(self, entry: ShellEntry) -> Plan:
        try:
            return Plan.from_json(entry.plan, self.config)
        except PlanError as error:
            raise CheckpointError(
                f"plan of shell {entry.name!r}: {error}", file=str(self.directory / MANIFEST)
            ) from error


def is_packed(directory: Path) -> bool:
    """Whether `directory` looks like a packed model."""
    return (directory / MANIFEST).exists()


def read_manifest(directory: Path) -> Manifest:
    """Parses matryo.json strictly.

    Raises CheckpointError for anything unknown, missing or of the wrong type.
    """
    path = directory / MANIFEST
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError(f"larger than {_MAX_MANIFEST_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, dict):
            document.setdefault("towers", [])
        values = _exactly(Manifest, document)
        shells = tuple(ShellEntry(**_exactly(ShellEntry, entry)) for entry in values["shells"])
        towers = tuple(TowerEntry(**_exactly(TowerEntry, entry)) for entry in values["towers"])
        manifest = Manifest(**{**values, "shells": shells, "towers": towers})
        _check_values(manifest)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"not a manifest this version reads: {error}", file=str(path)
        ) from error
    return manifest


def hash_file(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file, read in blocks. Raises CheckpointError if it cannot be read."""
    digest, done = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK):
                digest.update(block)
                done += len(block)
                if progress is not None:
                    progress(done)
    except OSError as error:
        raise CheckpointError(f"cannot read: {error.strerror}", file=str(path)) from error
    return digest.hexdigest()


def _offset(progress: Progress, start: int, total: int, name: str) -> Callable[[int], None]:
    return lambda done: progress(start + done, total, name)


def _arrays(file: SafetensorsFile) -> dict[str, Array]:
    found = {name: file.array(name) for name in file.tensors}
    for name, array in found.items():
        if not array.flags.aligned:
            raise CheckpointError(
                "is not aligned to its elements", file=str(file.path), tensor=name
            )
    return found


def _open_file(directory: Path, entry: ShellEntry | TowerEntry) -> SafetensorsFile:
    file = SafetensorsFile(directory / entry.file)
    for what, expected, got in (
        ("size", str(entry.bytes), str(file.num_bytes)),
        ("header", entry.header_sha256, file.header_sha256),
    ):
        if expected != got:
            raise CheckpointError(
                f"{what} is not the manifest's: another file, or damaged",
                file=str(file.path), expected=expected, got=got,
            )  # fmt: skip
    return file


def _exactly(cls: type[Any], document: object) -> dict[str, Any]:
    """The document if its keys are exactly the fields of `cls` with values of the plain types.

    Raises ValueError.
    """
    if not isinstance(document, dict):
        raise ValueError(f"expected an object, got {type(document).__name__}")
    names = {field.name for field in fields(cls)}
    if set(document) != names:
        odd = sorted(set(document) ^ names)[0]
        raise ValueError(f"key {odd!r} is {'unknown' if odd in document else 'missing'}")
    wanted: dict[str, type] = {
        "str": str, "int": int, "dict[str, str]": dict, "dict[str, list[int]]": dict,
        "tuple[ShellEntry, ...]": list, "tuple[TowerEntry, ...]": list,
    }  # fmt: skip
    for field in fields(cls):
        if type(document[field.name]) is not wanted[str(field.type)]:
            raise ValueError(f"{field.name} is {document[field.name]!r:.80}; expected {field.type}")
    return document


def _check_values(manifest: Manifest) -> None:
    if manifest.format != FORMAT or manifest.format_version != FORMAT_VERSION:
        raise ValueError(
            f"format {manifest.format!r} version {manifest.format_version}; this program reads "
            f"{FORMAT} version {FORMAT_VERSION}"
        )
    if manifest.group != GROUP or manifest.weights not in WEIGHTS:
        raise ValueError(f"weights {manifest.weights!r} in groups of {manifest.group}")
    if not manifest.shells:
        raise ValueError("no shells")
    if not {entry.name for entry in manifest.towers} <= {"vision", "audio"}:
        raise ValueError("a tower that is neither vision nor audio")
    if len({entry.name for entry in manifest.towers}) != len(manifest.towers):
        raise ValueError("a tower is there twice")
    files: list[ShellEntry | TowerEntry] = [*manifest.shells, *manifest.towers]
    if len({entry.file for entry in files}) != len(files):
        raise ValueError("two shells have one file")
    for entry in files:
        if entry.file != Path(entry.file).name or not entry.file.endswith(".safetensors"):
            raise ValueError(
                f"shell file {entry.file!r} must be a .safetensors name without a directory"
            )
