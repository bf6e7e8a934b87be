"""Result files: one JSON document a run in `benchmarks/results/`.

In: what the driver measured. Out: `SUITE-DATE-COMMIT.json`, read again by the report, which takes
the newest of every case.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import machine
from .case import Case, Options
from .driver import Measurement

FORMAT = 1
RESULTS = Path(__file__).parent / "results"


def of_case(
    case: Case, measurements: Sequence[Measurement], dropped: Mapping[str, str]
) -> dict[str, object]:
    """The record of one case; floats shortened to what they are worth."""
    return {
        "case": asdict(case),
        "title": case.title,
        "measurements": [one.to_json() for one in measurements],
        "dropped": dict(dropped),
    }


def rounded(value: Any) -> Any:
    """Every float of a JSON value with six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return value


def save(
    suite: str,
    options: Options,
    unavailable: Mapping[str, str],
    records: Sequence[Mapping[str, object]],
    folder: Path = RESULTS,
    step: str = "",
) -> dict[str, object]:
    """Write the result file and return its content (with `file`). Paths of this machine are left
    out. `step`: which step of the whole measurement it was.
    """
    now = datetime.datetime.now(datetime.UTC)
    described = machine.describe()
    document: dict[str, Any] = {
        "format": FORMAT,
        "suite": suite,
        "step": step,
        "time": now.isoformat(timespec="seconds"),
        "machine": described,
        "threads": options.threads,
        "weights": options.weights,
        "llama_cpp": options.llama_version,
        "unavailable": dict(unavailable),
        "cases": [rounded(dict(one)) for one in records],
    }
    commit = str(described["commit"]).replace("+", "-changed") or "nocommit"
    name = f"{suite}-{now:%Y%m%d-%H%M%S}-{commit}.json"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(document, indent=1) + "\n")
    return {"file": name, **document}


def documents(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Every result file, oldest first. Raises ValueError for a file of another format."""
    found = []
    for path in folder.glob("*.json"):
        document: dict[str, Any] = json.loads(path.read_text())
        if document.get("format") != FORMAT:
            raise ValueError(
                f"{path.name} has format {document.get('format')!r}, this program reads {FORMAT}"
            )
        found.append(document)
    return sorted(found, key=lambda one: str(one["time"]))


def newest(folder: Path = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """The latest record of every case with a figure, by suite; each carries its `document`.

    Raises ValueError for a file of another format.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for document in documents(folder):
        origin = {key: value for key, value in document.items() if key != "cases"}
        for one in document["cases"]:
            if not any(m["round"] > 0 for m in one.get("measurements", [{"round": 1}])):
                continue  # interrupted, or nobody could
            key = one.get("title") or one["size"]
            found.setdefault(document["suite"], {})[key] = {**one, "document": origin}
    return {suite: list(by_case.values()) for suite, by_case in found.items()}
