"""A control group with a limit of memory, and `matryo run` in it.

    python -m benchmarks.control_group MODEL --limit 2GB --tokens 16 --out group.json

The model's files leave the system's cache first, so that what is read is charged to the group.
Out: JSON: what the group used and was refused, the sizes, and what was resident. Needs Linux, root,
and a group hierarchy (version 1 or 2) that may be written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.processes import drop_from_page_cache
from benchmarks.record import rounded
from matryo.cli.elastic import parse_bytes
from matryo.elastic.trace import read_trace

ROOT = Path("/sys/fs/cgroup")
_IN_GROUP = 'echo $$ > "$0" && exec "$@"'


class ControlGroup:
    """A group of its own below the root of the hierarchy, removed by `close`.

    Raises OSError where no group with memory can be made.
    """

    def __init__(self) -> None:
        self._is_old = (ROOT / "memory" / "memory.limit_in_bytes").exists()
        parent = ROOT / "memory" if self._is_old else ROOT
        self._path = parent / f"matryo-{os.getpid()}-{time.monotonic_ns()}"
        self._path.mkdir()
        if not (self._path / self._limit_name).exists():
            self.close()
            raise OSError("groups here have no limit of memory")
        if subprocess.run(self.command("true"), check=False, capture_output=True).returncode:
            self.close()
            raise OSError("no process can be moved into a new group")

    def command(self, *words: str | Path) -> list[str]:
        """A command that runs in the group from its beginning."""
        return ["sh", "-c", _IN_GROUP, str(self._path / "cgroup.procs"), *map(str, words)]

    def limit(self, num_bytes: int | None) -> None:
        """Set or lift the limit. Raises OSError if what is used cannot be pressed below it."""
        none = "-1" if self._is_old else "max"
        (self._path / self._limit_name).write_text(none if num_bytes is None else str(num_bytes))

    def used(self) -> dict[str, int]:
        """Most bytes charged, how often the limit was met, and how often a process was killed."""
        if self._is_old:
            killed = self._counts("memory.oom_control").get("oom_kill", 0)
            return {
                "most_bytes": int((self._path / "memory.max_usage_in_bytes").read_text()),
                "limit_met": int((self._path / "memory.failcnt").read_text()),
                "killed": killed,
            }
        events, peak = self._counts("memory.events"), self._path / "memory.peak"
        return {
            "most_bytes": int(peak.read_text()) if peak.exists() else 0,
            "limit_met": events.get("max", 0),
            "killed": events.get("oom_kill", 0),
        }

    def close(self) -> None:
        """Remove the group. Its processes must have ended."""
        for _ in range(200):
            try:
                self._path.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:  # a process that has just ended is still counted
                time.sleep(0.05)

    @property
    def _limit_name(self) -> str:
        return "memory.limit_in_bytes" if self._is_old else "memory.max"

    def _counts(self, name: str) -> dict[str, int]:
        lines = (self._path / name).read_text().splitlines()
        return {key: int(value) for key, value in (line.split() for line in lines)}


def run(model: Path, limit: int, tokens: int) -> dict[str, Any]:
    """One answer in a group of that limit, with `--memory` of it."""
    with closing(ControlGroup()) as group, tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace.jsonl"
        group.limit(limit)
        drop_from_page_cache(model)
        done = subprocess.run(
            group.command(
                sys.executable, "-m", "matryo", "run", "The house was", "--raw", "-m", model,
                "--memory", str(limit), "--trace", trace, "-n", str(tokens), "--json",
            ),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"error: exit code {done.returncode}: {done.stderr}")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        rules, decisions = read_trace(trace)
        return {
            "model": model.name,
            "limit": limit,
            "tokens": sum(event["event"] == "text" for event in events),
            "sizes": list(dict.fromkeys(rules.levels[one.setting.level].name for one in decisions)),
            "limit_seen": decisions[-1].reading.memory_limit,
            "most_resident_bytes": max(one.reading.resident_bytes for one in decisions),
            "group": group.used(),
        }


def main() -> None:
    """Run and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--limit", default="2GB")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    report = run(options.model, parse_bytes(options.limit), options.tokens)
    report |= {"machine": describe(), "at": time.strftime("%FT%T")}
    options.out.write_text(json.dumps(rounded(report), indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: report[key] for key in ("sizes", "most_resident_bytes", "group")}))


if __name__ == "__main__":
    main()
