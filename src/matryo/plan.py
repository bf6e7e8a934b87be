"""Plans: which layers of a checkpoint run, and how wide each feed-forward network is.

In: a `TextConfig` and a name, a JSON file, or a row of Google's table of slicing configurations
(CSV). Out: a frozen `Plan`, checked against the checkpoint. A plan never touches weights: it
selects prefixes of what is there.

Layers keep their own number, attention type and activation sparsity whatever is skipped around
them. That is also what
a sliced checkpoint says: with the sparse layers in front, dropping some of them leaves the others
sparse and in order.
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from matryo.config import GROUP, TextConfig
from matryo.errors import PlanError

PLANS_FORMAT = "matryo-plans"
"""What a file of plans with the figures that were measured for them says it is."""

_E2B_SHAPE = (
    2048,
    30,
    20,
    8192,
)  # hidden size, layers, owners, FFN width of the released small checkpoint
_MAX_ENTRIES, _MAX_WIDTH, _MAX_CELL = 4096, 1 << 20, 1 << 16
_MAX_PLANS, _MAX_SHELLS = 64, 8


@dataclass(frozen=True, slots=True)
class Plan:
    """`layers` (kept, ascending, numbered as in the checkpoint), the FFN width of each, and the
    owners of the checkpoint.

    Raises PlanError if the layers are empty, repeated or out of order, or a width is not a multiple
    of 32.
    """

    layers: tuple[int, ...]
    ffn_width: tuple[int, ...]
    num_owners: int

    def __post_init__(self) -> None:
        if not self.layers:
            raise PlanError("a plan keeps at least one layer; this one keeps none")
        if len(self.layers) != len(self.ffn_width):
            raise PlanError(
                f"{len(self.layers)} layers are kept but {len(self.ffn_width)} FFN widths are "
                "given; give one each"
            )
        if self.layers[0] < 0 or any(a >= b for a, b in pairwise(self.layers)):
            raise PlanError(
                f"layers must be ascending and without repetition, got {_ranges(self.layers)}"
            )
        for layer, width in zip(self.layers, self.ffn_width, strict=True):
            if width < GROUP or width % GROUP:
                raise PlanError(
                    f"FFN width {width} of layer {layer} is not a positive multiple of {GROUP}"
                )

    @property
    def owners(self) -> tuple[int, ...]:
        """Kept layers that write K/V, ascending."""
        return tuple(layer for layer in self.layers if layer < self.num_owners)

    def check(self, config: TextConfig) -> Plan:
        """Returns the plan if the checkpoint can run it. Raises PlanError with the reason
        otherwise.
        """
        if self.num_owners != config.num_owners:
            raise PlanError(
                f"the plan is for {self.num_owners} layers with K/V, the checkpoint has "
                f"{config.num_owners}"
            )
        if self.layers[-1] >= config.num_layers:
            raise PlanError(
                f"layer {self.layers[-1]} does not exist: the checkpoint has {config.num_layers} "
                "layers"
            )
        missing = sorted(config.producers - set(self.layers))
        if missing:
            raise PlanError(
                f"layer {missing[0]} cannot be skipped: later layers read its keys and values"
            )
        for layer, width in zip(self.layers, self.ffn_width, strict=True):
            if width > config.ffn_width[layer]:
                raise PlanError(
                    f"FFN width {width} of layer {layer} exceeds the {config.ffn_width[layer]} of "
                    "the checkpoint"
                )
        return self

    def same_cache(self, other: Plan) -> bool:
        """True if both plans write bit-identical K/V, so that they can follow each other token by
        token.

        K/V of a layer depend on the layers below it; the FFN of the last owner reaches none of
        them.
        """
        return self._cache_key() == other._cache_key()

    def _cache_key(self) -> tuple[object, ...]:
        return self.num_owners, self.owners, self.ffn_width[: len(self.owners) - 1]

    def contains(self, other: Plan) -> bool:
        """True if every weight `other` reads is one this plan reads too."""
        widths = dict(zip(self.layers, self.ffn_width, strict=True))
        return all(
            widths.get(layer, 0) >= width
            for layer, width in zip(other.layers, other.ffn_width, strict=True)
        )

    def describe(self) -> str:
        """One line for people: `30 layers (0-19, 25-34), FFN 8192`."""
        widths = sorted(set(self.ffn_width))
        ffn = str(widths[0]) if len(widths) == 1 else f"{widths[0]}-{widths[-1]}"
        return f"{len(self.layers)} layers ({_ranges(self.layers)}), FFN {ffn}"

    def to_json(self) -> dict[str, list[int]]:
        """The plan as plans.json and plan files spell it."""
        return {"layers": list(self.layers), "ffn_width": list(self.ffn_width)}

    @classmethod
    def from_json(cls, document: object, config: TextConfig) -> Plan:
        """Reads {"layers": [...], "ffn_width": [...] or one number}; a missing key means all there
        is.

        Raises PlanError on any other shape, and if the checkpoint cannot run the plan.
        """
        if not isinstance(document, dict) or not set(document) <= {"layers", "ffn_width"}:
            raise PlanError('a plan is an object with "layers" and "ffn_width"')
        layers = _integers("layers", document.get("layers", list(range(config.num_layers))))
        widths = document.get(
            "ffn_width", [config.ffn_width[n] for n in layers if 0 <= n < config.num_layers]
        )
        widths = [widths] * len(layers) if isinstance(widths, int) else widths
        return cls(layers, _integers("ffn_width", widths), config.num_owners).check(config)

    @classmethod
    def from_file(cls, path: Path, config: TextConfig) -> Plan:
        """Reads one plan from a JSON file. Raises PlanError."""
        document = _read_json(path)
        if isinstance(document, dict) and document.get("format") == PLANS_FORMAT:
            names = ", ".join(_plans_in(document, path))
            raise PlanError(f"{path} holds several plans: write {path}:NAME with one of {names}")
        return cls.from_json(document, config)

    @classmethod
    def from_plans_file(cls, path: Path, name: str, config: TextConfig) -> Plan:
        """Reads the plan `name` from a file of several: what `matryo search` writes, or an object
        of plans by name.

        Raises PlanError if there is none of that name, or the file was made for a model of another
        shape.
        """
        document = _read_json(path)
        plans = _plans_in(document, path)
        if isinstance(document, dict) and document.get("format") == PLANS_FORMAT:
            _check_shape(document.get("model"), path, config)
        if name not in plans:
            raise PlanError(f"{path} has no plan {name!r}; there are {', '.join(plans)}")
        entry = plans[name]
        if isinstance(entry, dict):
            entry = {key: entry[key] for key in ("layers", "ffn_width") if key in entry}
        try:
            return cls.from_json(entry, config)
        except PlanError as error:
            raise PlanError(f"plan {name!r} in {path}: {error}") from error

    @classmethod
    def from_csv(cls, path: Path, name: str, config: TextConfig) -> Plan:
        """Reads the row `name` of a table in Google's format: name, number of layers, FFN dims,
        layers skipped.

        `name` is the row's name or a part of it that only one row has. FFN dims list the kept
        layers, or all layers.
        Raises PlanError if the row is missing, ambiguous or malformed, or the checkpoint cannot run
        it.
        """
        row = _find_row(_read_table(path), name, path)
        skipped = set(_dimensions("layers skipped", row["skipped"] or "[]"))
        layers = tuple(layer for layer in range(config.num_layers) if layer not in skipped)
        widths = _dimensions("FFN dims", row["ffn"])
        if len(widths) == config.num_layers:
            widths = tuple(widths[layer] for layer in layers)
        stated = row["layers"].strip()
        if stated and stated != str(len(layers)):
            raise PlanError(
                f"{row['name']!r} is a plan of {stated[:20]} layers, but {len(layers)} of the "
                "checkpoint's "
                f"{config.num_layers} layers remain without {sorted(skipped)}; use the checkpoint "
                "it was made for"
            )
        return cls(layers, widths, config.num_owners).check(config)


def full_plan(config: TextConfig) -> Plan:
    """Everything the checkpoint has."""
    return Plan(tuple(range(config.num_layers)), config.ffn_width, config.num_owners)


def presets(config: TextConfig) -> dict[str, Plan]:
    """Plans every checkpoint has: `full`, and `e4b` and `e2b` by the rule that cuts the released
    E2B from E4B.

    A checkpoint that is the released E2B has no `e4b`: find_plan says so.
    """
    full = full_plan(config)
    if _is_e2b(config):
        return {"e2b": full, "full": full}
    return {"e2b": _half_plan(config), "e4b": full, "full": full}


def read_plans(path: Path, config: TextConfig) -> dict[str, Plan]:
    """The plans of plans.json at `path` if it exists, then the presets that it does not override.

    Raises PlanError naming the plan.
    """
    plans: dict[str, Plan] = {}
    if not path.exists():
        return presets(config)
    document = _read_json(path)
    if not isinstance(document, dict):
        raise PlanError(f"{path} must hold an object: plan name to plan")
    if len(document) > _MAX_PLANS:
        raise PlanError(f"{path} holds {len(document)} plans; at most {_MAX_PLANS} are read")
    for name, entry in document.items():
        try:
            plans[name] = Plan.from_json(entry, config)
        except PlanError as error:
            raise PlanError(f"plan {name!r} in {path}: {error}") from error
    # The checkpoint's own names come first: they are what its plans are called.
    return {**plans, **{name: plan for name, plan in presets(config).items() if name not in plans}}


def find_plan(wanted: str, plans: Mapping[str, Plan], config: TextConfig) -> Plan:
    """A plan by name, by JSON file (`mine.json`), by name in a file of several
    (`plans.json:e1.26m`), or by table and row (`configs.csv:E2.49B`).

    Raises PlanError naming the plans there are.
    """
    if wanted in plans:
        return plans[wanted]
    table, separator, row = wanted.partition(".csv:")
    if separator:
        return Plan.from_csv(Path(table + ".csv"), row, config)
    file, separator, name = wanted.partition(".json:")
    if separator:
        return Plan.from_plans_file(Path(file + ".json"), name, config)
    if wanted.endswith(".json"):
        return Plan.from_file(Path(wanted), config)
    if wanted == "e4b" and _is_e2b(config):
        raise PlanError(
            "this checkpoint is E2B, cut out of E4B; it holds no e4b. Use e2b, or an E4B checkpoint"
        )
    raise PlanError(
        f"no plan named {wanted!r}; there are {', '.join(sorted(plans))}, or give a .json file"
    )


def rungs(shells: Iterable[Plan], layer: int) -> tuple[int, ...]:
    """The distinct FFN widths of a layer over the shells, ascending: where its segments end."""
    widths = {dict(zip(s.layers, s.ffn_width, strict=True)).get(layer, 0) for s in shells}
    return tuple(sorted(widths - {0}))


def shell_chain(plans: Mapping[str, Plan], config: TextConfig) -> dict[str, Plan]:
    """The plans that become shells: each contained in the next, the last one everything the
    checkpoint has.

    The longest such chain among the plans, so that most of them read whole files; a long one is
    thinned evenly, because every shell is a file and a further piece of each FFN product. Keys are
    the first names of the plans.
    """
    full = full_plan(config)
    names: dict[Plan, str] = {}
    for name, plan in plans.items():
        names.setdefault(plan, name)
    names.setdefault(full, "full")
    best: dict[Plan, list[Plan]] = {}
    for plan in sorted(names, key=lambda p: (sum(p.ffn_width), len(p.layers))):
        below = (chain for inner, chain in best.items() if plan.contains(inner))
        best[plan] = [*max(below, key=len, default=[]), plan]
    chain = best[full]
    if len(chain) > _MAX_SHELLS:
        chain = [chain[round(i * (len(chain) - 1) / (_MAX_SHELLS - 1))] for i in range(_MAX_SHELLS)]
    return {names[plan]: plan for plan in chain}


def _is_e2b(config: TextConfig) -> bool:
    shape = (config.hidden_size, config.num_layers, config.num_owners, max(config.ffn_width))
    return shape == _E2B_SHAPE


def _half_plan(config: TextConfig) -> Plan:
    """Half of every FFN, and without the first period of readers if at least two periods of them
    exist.
    """
    period = _period(config.window)
    first = config.num_owners
    skip_end = first + period if config.num_layers - first >= 2 * period else first
    layers = tuple(layer for layer in range(config.num_layers) if not first <= layer < skip_end)
    groups = (config.ffn_width[layer] // GROUP for layer in layers)
    return Plan(layers, tuple(GROUP * ((count + 1) // 2) for count in groups), config.num_owners)


def _period(window: tuple[int, ...]) -> int:
    """The shortest distance after which the layer types repeat."""
    lengths = range(1, len(window) + 1)
    return next(
        p for p in lengths if all(window[i] == window[i - p] for i in range(p, len(window)))
    )


def _ranges(layers: Iterable[int]) -> str:
    """`0-19, 25-34`."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _integers(key: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _MAX_ENTRIES:
        raise PlanError(f"{key} must be a list of at most {_MAX_ENTRIES} integers")
    for entry in value:
        if not isinstance(entry, int) or isinstance(entry, bool) or not 0 <= entry <= _MAX_WIDTH:
            raise PlanError(
                f"{key} holds {str(entry)[:40]!r}; expected integers from 0 to {_MAX_WIDTH}"
            )
    return tuple(value)


def shape_of(config: TextConfig) -> dict[str, object]:
    """What a file of plans says about the model it was made for."""
    return {
        "num_layers": config.num_layers,
        "num_owners": config.num_owners,
        "ffn_width": list(config.ffn_width),
    }


def _check_shape(model: object, path: Path, config: TextConfig) -> None:
    """Raises PlanError if the file was made for a model of another shape."""
    given = model if isinstance(model, dict) else {}
    for key, here in shape_of(config).items():
        if given.get(key) != here:
            name = str(given.get("name", "another model"))[:80]
            raise PlanError(
                f"{path} was made for {name}, whose {key} is {str(given.get(key))[:60]}; this "
                f"checkpoint has {str(here)[:60]}: use the plans with that model, or search again"
            )


def _plans_in(document: object, path: Path) -> dict[str, object]:
    """The plans of a file by name, unread."""
    found = document
    if isinstance(document, dict) and document.get("format") == PLANS_FORMAT:
        found = document.get("plans")
    if not isinstance(found, dict) or not found or len(found) > _MAX_PLANS:
        raise PlanError(f"{path}: expected an object of 1 to {_MAX_PLANS} plans by name")
    return found


def _read_json(path: Path) -> object:
    try:
        document: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path} is not a JSON document: {error}") from error
    return document


def _read_table(path: Path) -> list[dict[str, str]]:
    """Rows with the keys name, layers, ffn, skipped, whatever the header calls them exactly."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        raise PlanError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise PlanError(f"{path} is not a CSV table: {error}") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    columns = {
        "name": _column(header, "name"),
        "layers": _column(
            header, "# layers", "number of layers", "num layers", "num_layers", "layers"
        ),
        "ffn": _column(header, "ffn hidden dims", "ffn dims", "ffn_hidden_dims", "ffn_dims"),
        "skipped": _column(
            header, "layers skipped", "skipped layers", "layers_skipped", "layer skipped"
        ),
    }
    lost = [key for key, column in columns.items() if column is None]
    if lost:
        raise PlanError(
            f"{path} has no column for {lost[0]}; expected name, # Layers, FFN Hidden Dims, "
            "Layers Skipped"
        )
    return [
        {
            key: row[column] if column is not None and column < len(row) else ""
            for key, column in columns.items()
        }
        for row in rows[1:]
        if any(row)
    ]


def _column(header: list[str], *names: str) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _find_row(rows: list[dict[str, str]], name: str, path: Path) -> dict[str, str]:
    exact = [row for row in rows if row["name"].strip() == name.strip()]
    partial = [row for row in rows if name.strip().lower() in row["name"].lower()]
    found = exact or partial
    if len(found) != 1:
        names = "; ".join(row["name"] for row in (found or rows))
        what = "no row" if not found else f"{len(found)} rows"
        raise PlanError(f"{what} of {path} named {name!r}; choose one of: {names}")
    return found[0]


def _dimensions(what: str, text: str) -> tuple[int, ...]:
    """A list of integers as the table writes it: `[2_048 * 4, 8192]`; also `[8192] * 10 + [16384] *
    5`.
    """
    try:
        if len(text) > _MAX_CELL:
            raise ValueError("longer than any plan")
        value = _evaluate(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PlanError(
            f"{what} {text[:60]!r} is not a list of integers such as [2_048 * 4, 8192]"
        ) from error
    return _integers(what, value)


def _evaluate(node: ast.expr) -> int | list[int]:
    """Integers, lists, + and * only, bounded in size; raises ValueError for anything else."""
    if isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value <= _MAX_WIDTH:
        return node.value
    if isinstance(node, ast.List):
        return [_evaluate_integer(element) for element in node.elts]
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Add)):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Add):
            return _bounded_sum(left, right)
        return _bounded_product(left, right)
    raise ValueError("not an integer, a list, + or *")


def _evaluate_integer(node: ast.expr) -> int:
    value = _evaluate(node)
    if isinstance(value, list):
        raise ValueError("a list inside a list")
    return value


def _bounded_sum(left: int | list[int], right: int | list[int]) -> int | list[int]:
    if (
        isinstance(left, list)
        and isinstance(right, list)
        and len(left) + len(right) <= _MAX_ENTRIES
    ):
        return left + right
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    raise ValueError("cannot add")


def _bounded_product(left: int | list[int], right: int | list[int]) -> int | list[int]:
    if isinstance(left, int) and isinstance(right, int) and left * right <= _MAX_WIDTH:
        return left * right
    if isinstance(left, int):
        left, right = right, left
    if isinstance(left, list) and isinstance(right, int) and len(left) * right <= _MAX_ENTRIES:
        return left * right
    raise ValueError("cannot multiply")
