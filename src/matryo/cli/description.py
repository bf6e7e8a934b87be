"""What a checkpoint is: its architecture, its sizes, its files, and where its bytes live now.

In: a packed or a Hugging Face directory. Out: a `Description`. Two kinds of figures never mix:
`sizes` are counted from shapes, the `ledger` is read from the operating system.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matryo
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.packed import PackedModel, Progress, is_packed
from matryo.checkpoint.tower_source import TowerSource
from matryo.cli.outcome import CommandError
from matryo.config import TextConfig
from matryo.elastic.ledger import Ledger, read_ledger
from matryo.kernels.reference_pages import PAGE, page_bytes
from matryo.media.towers import WORDS
from matryo.model.cost import KIND_BITS, decode_bytes
from matryo.model.parameters import Sizes, count_parameters
from matryo.plan import Plan, find_plan, read_plans
from matryo.quantize import KIND_POLICY
from matryo.tower_config import TowerConfig

PACKED, HUGGING_FACE = "packed", "hugging-face"
# One matrix of each part of the cost model; the others of the part are stored as the same kind.
_PART_FAMILY = {
    "attention": "q",
    "laurel": "laurel_left",
    "ffn": "gate",
    "ple": "ple_gate",
    "altup": "altup_projection",
    "head": "embed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeDescription:
    """One plan, counted from shapes.

    bytes_per_token: weights read to decode one token, of the stored matrices if they are at hand
    kv_bytes_per_token: written for each token
    kv_bytes_kept_per_token: the part that grows for ever; sliding layers keep a fixed window
    missing_file: what has to be added before the plan runs, None if nothing
    """

    plan: Plan
    parameters: Sizes
    bytes_per_token: int
    kv_bytes_per_token: int
    kv_bytes_kept_per_token: int
    missing_file: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain values; `plan` is what a plan file holds."""
        return {
            "plan": self.plan.to_json(),
            "describes": self.plan.describe(),
            "parameters": {**asdict(self.parameters), "total": self.parameters.total},
            "bytes_per_token": self.bytes_per_token,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "kv_bytes_kept_per_token": self.kv_bytes_kept_per_token,
            "missing_file": self.missing_file,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDescription:
    """One file of weights; `holds` says what for, `present` whether it is there."""

    name: str
    bytes: int
    holds: str
    present: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A checkpoint.

    weights: kind of the stored weights, or the kind that sizes are counted for before packing
    towers: the encoders it has, whether their files are there or not
    """

    path: Path
    form: str
    weights: str
    kv: str
    config: TextConfig
    sizes: Mapping[str, SizeDescription]
    files: tuple[FileDescription, ...]
    ledger: Ledger
    towers: TowerConfig

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; sizes in bytes."""
        return {
            "name": self.path.name,
            "path": str(self.path),
            "form": self.form,
            "weights": self.weights,
            "kv": self.kv,
            "architecture": asdict(self.config),
            "encoders": {
                name: None if tower is None else asdict(tower)
                for name, tower in (("vision", self.towers.vision), ("audio", self.towers.audio))
            },
            "plans": {name: size.to_json() for name, size in self.sizes.items()},
            "files": [asdict(file) for file in self.files],
            "ledger": self.ledger.to_json(),
        }


def describe_checkpoint(
    directory: Path,
    *,
    weights: str,
    kv: str,
    size: str | None = None,
    verify: Progress | None = None,
) -> Description:
    """Open a directory and describe it; a Hugging Face directory is not packed.

    weights: the kind to count a Hugging Face directory for · kv: f32, bf16 or int8
    size: only this plan
    verify: compare every byte of a packed directory with the checksums, and report to this
    Raises CheckpointError, ConfigError or PlanError for a directory that cannot be used.
    """
    if is_packed(directory):
        return _describe_packed(directory, kv, size, verify)
    if verify is not None:
        raise CommandError(f"{directory}: only a packed directory carries checksums")
    source = HuggingFaceSource(directory)
    files = tuple(
        FileDescription(
            name=file.path.name, bytes=file.num_bytes, holds=_dtypes(file.tensors), present=True
        )
        for file in source.files
    )
    return Description(
        path=directory,
        form=HUGGING_FACE,
        weights=weights,
        kv=kv,
        config=source.config,
        sizes={
            name: describe_size(source.config, plan, weights, kv)
            for name, plan in _plans(directory, source.config, size).items()
        },
        files=files,
        ledger=read_ledger([file.path for file in source.files], {}, {}),
        towers=TowerConfig(
            vision=source.towers.vision if TowerSource(source, "vision").shapes else None,
            audio=source.towers.audio if TowerSource(source, "audio").shapes else None,
        ),
    )


def _describe_packed(
    directory: Path, kv: str, size: str | None, verify: Progress | None
) -> Description:
    packed = PackedModel(directory)
    if verify is not None:
        packed.verify(verify)
    entries = packed.manifest.shells
    shells = {entry.file: Plan.from_json(entry.plan, packed.config) for entry in entries}
    lost = {entry.file for entry in packed.missing}
    plans = _plans(directory, packed.config, size)
    missing = {name: first_missing(plan, shells, lost) for name, plan in plans.items()}
    with matryo.load(directory) as model:
        ledger = model.ledger()
        read = {name: model.cost(plan).bytes for name, plan in plans.items() if not missing[name]}
    return Description(
        path=directory,
        form=PACKED,
        weights=packed.weights,
        kv=kv,
        config=packed.config,
        sizes={
            name: describe_size(
                packed.config,
                plan,
                packed.weights,
                kv,
                missing_file=missing[name],
                stored_bytes_per_token=read.get(name),
            )
            for name, plan in plans.items()
        },
        files=tuple(
            FileDescription(
                name=entry.file,
                bytes=entry.bytes,
                holds=_adds(index, [shell.name for shell in entries]),
                present=entry.file not in lost,
            )
            for index, entry in enumerate(entries)
        )
        + tuple(
            FileDescription(
                name=entry.file,
                bytes=entry.bytes,
                holds=f"the encoder of {WORDS[entry.name]}",
                present=packed.has_tower(entry.name),
            )
            for entry in packed.manifest.towers
        ),
        ledger=ledger,
        towers=packed.tower_config,
    )


def _adds(index: int, names: list[str]) -> str:
    return f"all of {names[0]}" if index == 0 else f"what {names[index]} adds to {names[index - 1]}"


def _dtypes(tensors: Mapping[str, Any]) -> str:
    kinds = sorted({info.dtype for info in tensors.values()})
    return f"{len(tensors)} tensors, {', '.join(kinds)}"


def _plans(directory: Path, config: TextConfig, size: str | None) -> dict[str, Plan]:
    """Every named plan, smallest first; or only the one that was asked for."""
    plans = read_plans(directory / "plans.json", config)
    if size is not None:
        return {size: find_plan(size, plans, config)}
    return dict(
        sorted(plans.items(), key=lambda item: (sum(item[1].ffn_width), len(item[1].layers)))
    )


def first_missing(plan: Plan, shells: Mapping[str, Plan], lost: Collection[str]) -> str | None:
    """The first lost file on the way to the shell that contains the plan.

    shells: file -> the plan that all files up to it run
    """
    for file, shell in shells.items():
        if file in lost:
            return file
        if shell.contains(plan):
            return None
    return None


def bytes_per_token(config: TextConfig, plan: Plan, weights: str) -> int:
    """Bytes of weights that one decoded token reads, counted from shapes for a kind of weights."""
    policy = KIND_POLICY[weights]
    return decode_bytes(
        config, plan, {part: KIND_BITS[policy[family]] for part, family in _PART_FAMILY.items()}
    )


def describe_size(
    config: TextConfig,
    plan: Plan,
    weights: str,
    kv: str,
    *,
    missing_file: str | None = None,
    stored_bytes_per_token: int | None = None,
) -> SizeDescription:
    """Count one plan from shapes; `stored_bytes_per_token` is counted from what is stored."""
    layer_kv = page_bytes(kv, config.num_kv_heads, config.head_dim) // PAGE
    full = sum(config.window[layer] == 0 for layer in plan.owners)
    return SizeDescription(
        plan=plan,
        parameters=count_parameters(config, plan),
        bytes_per_token=stored_bytes_per_token or bytes_per_token(config, plan, weights),
        kv_bytes_per_token=len(plan.owners) * layer_kv,
        kv_bytes_kept_per_token=full * layer_kv,
        missing_file=missing_file,
    )
