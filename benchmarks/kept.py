"""Results that are kept part by part, so that a run that was stopped goes on where it was.

In: what the parts depend on (a JSON object) and the parts as they come. Out: one JSON document
{"settings", "parts": {key: part}, "machine", "at"}. A document of other settings is begun anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matryo.checkpoint.atomic import replace_text

from . import machine
from .record import rounded


class Kept:
    """The parts in one file."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path = path
        settings = json.loads(json.dumps(settings))
        before: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        same = before.get("settings") == settings
        self.document: dict[str, Any] = (
            before if same else {"settings": settings, "parts": {}, "machine": machine.describe()}
        )

    def part(self, key: str, make: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
        """The part of that name: what was kept, or what `make(*given)` says, which is kept then."""
        parts: dict[str, dict[str, Any]] = self.document["parts"]
        if key not in parts:
            parts[key] = rounded(make(*given))
            self.document["at"] = time.strftime("%FT%T")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(self._path, json.dumps(self.document, indent=1) + "\n")
            print(key, flush=True)
        return parts[key]
