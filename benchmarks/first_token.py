"""A process that opens a checkpoint, gives one token, and says how long each step took: the start
suite's subject.

In: one JSON argument (path, weights, threads, plan, prompt). Out: one JSON line as soon as the
token is there, then it waits for the end of standard input, so that its memory can be read.
"""

from __future__ import annotations

import json
import sys
import time

begin = time.perf_counter()


def main() -> None:
    request = json.loads(sys.argv[1])

    import matryo

    imported = time.perf_counter()
    model = matryo.load(request["path"], weights=request["weights"], threads=request["threads"])
    loaded = time.perf_counter()
    session = model.session(plan=request["plan"])
    ids = [1000 + 7 * i for i in range(request["prompt"])]
    next(session.generate(ids, max_tokens=1, sampling=matryo.GREEDY))
    steps = {
        "import_seconds": imported - begin,
        "load_seconds": loaded - imported,
        "token_seconds": time.perf_counter() - loaded,
    }
    print(json.dumps(steps), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
