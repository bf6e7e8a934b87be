"""Readings and decisions of a run as a file of JSON lines, and the same run again without a model.

The first line holds the policy and the ladder of levels; every other one a reading, the level that
was decided on, and the reason. A trace can be replayed with the policy it was recorded with, which
gives the same decisions, or with another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from matryo.elastic.ladder import Level
from matryo.elastic.load import Reading
from matryo.elastic.policy import Policy, Rules, Setting, State, decide
from matryo.errors import InputError, PlanError
from matryo.plan import Plan

VERSION = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """One line of a trace: what was read, and what came of it."""

    reading: Reading
    setting: Setting
    reason: str


class Recorder:
    """Writes a trace, line by line. Raises OSError if it cannot."""

    def __init__(self, path: Path, rules: Rules) -> None:
        self._path = path
        self._write({"matryo_trace": VERSION, **_rules_to_json(rules)}, "w")

    def note(self, decision: Decision) -> None:
        """Append a decision."""
        self._write(
            {
                "reading": decision.reading.to_json(),
                "setting": asdict(decision.setting),
                "reason": decision.reason,
            }
        )

    def _write(self, line: dict[str, Any], mode: Literal["w", "a"] = "a") -> None:
        with self._path.open(mode, encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_trace(path: Path) -> tuple[Rules, list[Decision]]:
    """The rules and decisions of a trace; a last line that was cut off is left out.

    Raises InputError, with the line, if the file is no trace.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        rules = _rules_from_json(json.loads(lines[0]))
    except (IndexError, ValueError, KeyError, TypeError, AttributeError, PlanError) as error:
        raise InputError(f"{path}: line 1 is not the beginning of a trace: {error}") from error
    decisions = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            decisions.append(_decision(json.loads(line), rules))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines):
                break
            raise InputError(f"{path}: line {number} is not a decision: {error}") from error
    return rules, decisions


def replay(rules: Rules, readings: list[Reading]) -> Iterator[Decision]:
    """What the rules decide on these readings, from a state in which nothing has happened."""
    state = State()
    for reading in readings:
        state, setting, reason = decide(rules, state, reading)
        yield Decision(reading, setting, reason)


def _rules_to_json(rules: Rules) -> dict[str, Any]:
    return {
        "policy": asdict(rules.policy),
        "file_bytes": rules.file_bytes,
        "levels": [
            {
                **{field.name: getattr(level, field.name) for field in fields(Level)},
                "plan": {**level.plan.to_json(), "num_owners": level.plan.num_owners},
            }
            for level in rules.levels
        ],
    }


def _rules_from_json(document: dict[str, Any]) -> Rules:
    if document["matryo_trace"] != VERSION:
        raise ValueError(f"version {document['matryo_trace']!r:.20}, expected {VERSION}")
    levels = tuple(
        Level(
            **{
                **level,
                "plan": Plan(
                    tuple(level["plan"]["layers"]),
                    tuple(level["plan"]["ffn_width"]),
                    level["plan"]["num_owners"],
                ),
            }
        )
        for level in document["levels"]
    )
    if not levels:
        raise ValueError("no levels")
    return Rules(
        policy=Policy(**document["policy"]), levels=levels, file_bytes=document["file_bytes"]
    )


def _decision(document: dict[str, Any], rules: Rules) -> Decision:
    setting = Setting(**document["setting"])
    if not 0 <= setting.level < len(rules.levels):
        raise ValueError(f"level {setting.level} of {len(rules.levels)}")
    return Decision(Reading(**document["reading"]), setting, str(document["reason"]))
