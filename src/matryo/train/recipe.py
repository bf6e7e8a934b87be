"""The recipe of a run: a YAML file, and settings that the command line puts over it.

In: YAML text (strict: unknown and repeated keys, wrong types and values out of range are refused by
name). Out: a frozen `Recipe`. Nothing is opened here but the recipe; paths in it are relative to
the file's directory.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from matryo.errors import ConfigError

_MAX_BYTES = 1 << 20


def _at_least(value: float, low: float, key: str, high: float = math.inf) -> None:
    if not low <= value <= high:
        limit = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ConfigError(f"{key} is {value:g}; expected {limit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecipe:
    """What is trained: a checkpoint to continue from (`start`, a Hugging Face directory), or a
    shape to fill with initial values (`config`, the keys of its config.json).

    plans: rungs by name, {"layers": [...], "ffn_width": [...] or one number}; absent: those of
    `start`'s plans.json · tokenizer: the directory of a tokenizer.json; absent: `start`, or the
    embedded model's · freeze: parts that do not learn; a `_tower` is an encoder without its
    projection into the decoder
    """

    start: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    plans: dict[str, Any] = field(default_factory=dict)
    tokenizer: Path | None = None
    freeze: tuple[Literal["text", "vision", "audio", "vision_tower", "audio_tower"], ...] = ()

    def __post_init__(self) -> None:
        if (self.start is None) == (not self.config):
            raise ConfigError("model: give either start, a checkpoint, or config, a shape")
        if self.start is None and not self.plans:
            raise ConfigError("model.plans is empty; name the sizes to train")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecipe:
    """One source of rows; `weight`: its share of the rows, beside the other sources' weights."""

    files: tuple[Path, ...]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.files:
            raise ConfigError("data.mix: files is empty; name at least one .txt or .jsonl file")
        if not self.weight > 0:
            raise ConfigError(f"data.mix: weight is {self.weight:g}; expected more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecipe:
    """Rows: .txt files are one document each, .jsonl files one row a line: a document (`field`) or
    a conversation (`messages`), whose pictures and sounds are files.

    label, transcript: what a row calls that which its picture shows, and what its clip says
    files: one source, or mix: several · held_out: rows that are only measured, `held_out_rows` of
    them at most · sequence: tokens of a row · learn: what of a conversation is predicted
    bad_rows: what becomes of a row that cannot be used: fail, or skip and count
    picture_changes, sound_changes: how strongly media are changed at random, 0 to 1
    cache: a directory for ids and decoded media, which runs may share; absent: in the output
    """

    files: tuple[Path, ...] = ()
    mix: tuple[SourceRecipe, ...] = ()
    held_out: tuple[Path, ...] = ()
    held_out_rows: int = 64
    field: str = "text"
    label: str = "label"
    transcript: str = "transcript"
    sequence: int = 256
    learn: Literal["answers", "all"] = "answers"
    bad_rows: Literal["fail", "skip"] = "fail"
    picture_changes: float = 0.0
    sound_changes: float = 0.0
    cache: Path | None = None

    @property
    def sources(self) -> tuple[SourceRecipe, ...]:
        """The mix, or the one source that `files` are."""
        return self.mix or (SourceRecipe(files=self.files),)

    def __post_init__(self) -> None:
        if not self.files and not self.mix:
            raise ConfigError("data.files is empty; name at least one .txt or .jsonl file")
        if self.files and self.mix:
            raise ConfigError("data: give either files, one source, or mix, several")
        for key in ("picture_changes", "sound_changes"):
            _at_least(getattr(self, key), 0.0, f"data.{key}", 1.0)
        _at_least(self.sequence, 2, "data.sequence")
        _at_least(self.held_out_rows, 1, "data.held_out_rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveRecipe:
    """Which plans a step runs and what they learn from; see `train/widths.py`, `train/head.py`.

    rungs: weight of each plan; absent: all equal · mixes: random plans a step (sum), or their
    chance (sample) · skippable: blocks of layers that random plans may leave out; absent: those
    that some rung leaves out
    nesting: separate = a step's passes have nothing in common; shared = the first layers that
    plans run alike are computed once, in more memory
    cross_entropy, divergence, hidden: weights of a narrower pass' losses; the last two are against
    the widest rung
    classes, ctc: weights of what the encoders learn beside the decoder: the `label` of a picture,
    the `transcript` of a clip · decoder: false = they learn from these alone
    """

    mode: Literal["sum", "sample"] = "sum"
    nesting: Literal["separate", "shared"] = "separate"
    rungs: dict[str, float] = field(default_factory=dict)
    mixes: float = 0.0
    mix_weight: float = 1.0
    skippable: tuple[tuple[int, ...], ...] | None = None
    cross_entropy: float = 1.0
    divergence: float = 0.0
    hidden: float = 0.0
    temperature: float = 1.0
    classes: float = 0.0
    ctc: float = 0.0
    decoder: bool = True

    def __post_init__(self) -> None:
        keys = ("mixes", "mix_weight", "cross_entropy", "divergence", "hidden", "classes", "ctc")
        for key in keys:
            _at_least(getattr(self, key), 0.0, f"objective.{key}")
        _at_least(self.temperature, 0.01, "objective.temperature", 100.0)
        if not self.decoder and not (self.classes or self.ctc):
            raise ConfigError("objective: without the decoder, give classes or ctc a weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRecipe:
    """Other models to learn from.

    model: a directory of any causal model of transformers with the same tokenizer; it teaches every
    pass that the widest rung does not teach · top: how many likeliest ids of each expectation are
    kept in a file, made once; 0 = it runs beside · cross_entropy, divergence: weights of what is
    learned from the text and from it, at a temperature (1 if a file is kept)
    encoders: a directory of a Gemma 3n whose encoders teach ours by their features · features: the
    weight of that
    """

    model: Path | None = None
    top: int = 0
    cross_entropy: float = 1.0
    divergence: float = 1.0
    temperature: float = 1.0
    encoders: Path | None = None
    features: float = 1.0

    def __post_init__(self) -> None:
        if self.model is None and self.encoders is None:
            raise ConfigError("teacher: give a model, encoders or both")
        for key in ("top", "cross_entropy", "divergence", "features"):
            _at_least(getattr(self, key), 0, f"teacher.{key}")
        _at_least(self.temperature, 0.01, "teacher.temperature", 100.0)
        if self.top and self.temperature != 1.0:
            raise ConfigError("teacher.temperature must be 1 where teacher.top keeps a file")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRecipe:
    """LoRA: factors of `rank` beside frozen matrices, whose product counts alpha / rank.

    dropout: of the factors' input · targets: which matrices of every layer · merge: export the
    model with the product added; the adapter itself is always kept
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[
        Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], ...
    ] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    merge: bool = True

    def __post_init__(self) -> None:
        _at_least(self.rank, 1, "adapter.rank", 4096)
        _at_least(self.dropout, 0.0, "adapter.dropout", 0.99)
        _at_least(self.alpha, 1e-6, "adapter.alpha")
        if not self.targets:
            raise ConfigError("adapter.targets is empty; name at least one matrix")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerRecipe:
    """name: adamw, or muon (orthogonalised momentum) for the layers' matrices and adamw for the
    rest.

    rate: of matrices; embedding_rate: of the two tables; vector_rate: of norms, scales and AltUp's
    small matrices; absent: as `rate`. Weight decay acts on matrices alone.
    """

    name: Literal["adamw", "muon"] = "adamw"
    rate: float = 1e-3
    embedding_rate: float | None = None
    vector_rate: float | None = None
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        _at_least(self.rate, 0.0, "optimizer.rate")
        _at_least(self.weight_decay, 0.0, "optimizer.weight_decay")
        for key in ("beta1", "beta2"):
            _at_least(getattr(self, key), 0.0, f"optimizer.{key}", 0.999999)
        for key in ("embedding_rate", "vector_rate", "clip"):
            if getattr(self, key) is not None:
                _at_least(getattr(self, key), 0.0, f"optimizer.{key}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRecipe:
    """Steps, and the learning rate over them: `warmup` steps up, level, and down over the last part
    `decay` of all steps, along a line or a cosine, to `final` of the peak.

    average: what is measured and exported is the mean of the weights after each step of this last
    part of all steps; 0 = the last weights
    """

    steps: int
    warmup: int = 0
    decay: float = 0.5
    shape: Literal["linear", "cosine"] = "linear"
    final: float = 0.0
    average: float = 0.0

    def __post_init__(self) -> None:
        _at_least(self.steps, 1, "schedule.steps")
        _at_least(self.warmup, 0, "schedule.warmup")
        _at_least(self.decay, 0.0, "schedule.decay", 1.0)
        _at_least(self.final, 0.0, "schedule.final", 1.0)
        _at_least(self.average, 0.0, "schedule.average", 1.0)

    @property
    def first_averaged(self) -> int:
        """The first step, counted from 1, that the mean is over; behind the last if none."""
        return self.steps - math.floor(self.steps * self.average) + 1

    def scale(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0, as a share of its peak."""
        rising = (step + 1) / self.warmup if self.warmup else 1.0
        length = self.steps * self.decay
        left = min(1.0, (self.steps - step) / length) if length else 1.0
        if self.shape == "cosine":
            left = 0.5 - 0.5 * math.cos(math.pi * left)
        return min(1.0, rising) * (self.final + (1.0 - self.final) * left)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecipe:
    """What is written at the end: the Hugging Face directory in `dtype`, and packed ones.

    packed: kinds of weights, each a directory of its own · tokens: of the check against torch
    """

    dtype: Literal["f32", "bf16"] = "bf16"
    packed: tuple[Literal["f32", "bf16", "q8", "q4"], ...] = ()
    tokens: int = 64

    def __post_init__(self) -> None:
        _at_least(self.tokens, 2, "export.tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole run.

    rows: of at most `data.sequence` tokens, through the model at once, padded to the longest of
    them · accumulate: times that, a step; neighbours in length go together

    save_every, evaluate_every: in steps; the last step always does both · keep: checkpoints kept
    shard: several processes split weights, gradients and optimiser state instead of holding copies
    recompute: layers' activations are computed again in the backward pass instead of being kept
    threads: of torch, absent: torch's own choice · deterministic: refuse operations whose sums
    depend on the order of threads (accelerators; processors are exact without)
    """

    output: Path
    model: ModelRecipe
    data: DataRecipe
    schedule: ScheduleRecipe
    objective: ObjectiveRecipe = field(default_factory=ObjectiveRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    teacher: TeacherRecipe | None = None
    adapter: AdapterRecipe | None = None
    export: ExportRecipe = field(default_factory=ExportRecipe)
    rows: int = 8
    accumulate: int = 1
    precision: Literal["f32", "bf16"] = "f32"
    recompute: bool = False
    shard: bool = False
    deterministic: bool = False
    threads: int | None = None
    seed: int = 0
    save_every: int = 100
    evaluate_every: int = 100
    keep: int = 2

    def __post_init__(self) -> None:
        for key in ("rows", "accumulate", "save_every", "evaluate_every", "keep"):
            _at_least(getattr(self, key), 1, key)
        _at_least(self.seed, 0, "seed", 2**63 - 1)
        if self.objective.nesting == "shared" and (self.recompute or self.shard):
            raise ConfigError(
                "objective.nesting is shared: it keeps the activations of several passes, which "
                "recompute and shard would give away; choose separate"
            )
        if self.threads is not None:
            _at_least(self.threads, 1, "threads", 1024)
        if self.adapter is not None and self.shard:
            raise ConfigError("shard: an adapter is small; train it with shard: false")
        if self.adapter is not None and self.model.start is None:
            raise ConfigError(
                "adapter: a model from scratch has nothing to adapt; give model.start"
            )

    @classmethod
    def from_file(cls, path: Path, settings: Iterable[str] = ()) -> Recipe:
        """Reads a recipe; `settings` are `key.path=YAML` and win. Raises ConfigError."""
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ConfigError(f"{path} is larger than {_MAX_BYTES} bytes; no recipe is")
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 at byte {error.start}") from error
        return cls.from_text(text, settings, directory=path.parent.resolve(), name=str(path))

    @classmethod
    def from_text(
        cls, text: str, settings: Iterable[str] = (), *, directory: Path, name: str = "recipe"
    ) -> Recipe:
        """The same from YAML text; relative paths start at `directory`."""
        document = _parse(text, name)
        if not isinstance(document, dict):
            raise ConfigError(f"{name} must hold keys and values, got {_kind(document)}")
        for setting in settings:
            _put(document, setting)
        recipe: Recipe = _build(cls, document, "", directory)
        return recipe

    def to_json(self) -> dict[str, Any]:
        """The recipe as JSON, to compare a resumed run with and to keep beside the result."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain


def _parse(text: str, name: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    class Strict(yaml.SafeLoader):  # type: ignore[misc]
        """YAML without repeated keys, of which the last would silently win."""

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(
                    f"{name}: {key!r} is given twice (line {node.start_mark.line + 1})"
                )
        values = [loader.construct_object(value, deep=True) for _, value in node.value]
        return dict(zip(keys, values, strict=True))

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(text, Strict)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not YAML: {' '.join(str(error).split())}") from error


def _put(document: dict[str, Any], setting: str) -> None:
    """Applies `schedule.steps=5`."""
    path, equals, value = setting.partition("=")
    if not equals or not path:
        raise ConfigError(f"setting {setting!r} is not KEY=VALUE, such as schedule.steps=100")
    *parents, last = path.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
        if not isinstance(document, dict):
            raise ConfigError(f"setting {setting!r}: {parent} holds a value, not keys")
    document[last] = _parse(value, f"setting {setting!r}")


def _build(kind: Any, document: Mapping[Any, Any], place: str, directory: Path) -> Any:
    """A dataclass from a mapping, every key known and of its type."""
    hints = typing.get_type_hints(kind)
    known = {entry.name: entry for entry in dataclasses.fields(kind)}
    for key in document:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            raise ConfigError(f"unknown key {place}{key}{hint}")
    for name, entry in known.items():
        needed = (
            entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        )
        if needed and name not in document:
            raise ConfigError(f"{place}{name} is missing")
    return kind(
        **{
            key: _value(hints[key], value, f"{place}{key}", directory)
            for key, value in document.items()
        }
    )


def _value(hint: Any, value: Any, place: str, directory: Path) -> Any:
    """`value` as the type `hint` says; raises ConfigError naming the place."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType or origin is typing.Union:
        if value is None:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, place, directory)
    if origin is Literal:
        if value not in arguments:
            allowed = ", ".join(map(str, arguments))
            raise ConfigError(f"{place} is {value!r}; expected one of {allowed}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{place} is {_kind(value)}; expected a list")
        return tuple(
            _value(arguments[0], entry, f"{place}[{n}]", directory) for n, entry in enumerate(value)
        )
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{place} is {_kind(value)}; expected keys and values")
        return _build(hint, value, f"{place}.", directory)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{place} is {_kind(value)}; expected names and values")
        return {
            key: value[key]
            if arguments[1] is Any
            else _value(arguments[1], value[key], f"{place}.{key}", directory)
            for key in value
        }
    return _scalar(hint, value, place, directory)


def _scalar(hint: Any, value: Any, place: str, directory: Path) -> Any:
    if hint is Path and isinstance(value, str) and value:
        return directory / Path(value).expanduser()
    if hint is float:
        # YAML 1.1 takes 1e-3 for text: its exponents need a point.
        try:
            number = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    words = {Path: "a path", float: "a number", int: "a whole number", bool: "true or false"}
    raise ConfigError(f"{place} is {_kind(value)}; expected {words.get(hint, hint.__name__)}")


def _kind(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(value)[:60]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
