"""One contender in its own process: `python -m benchmarks.worker NAME OPTIONS`.

In: one JSON object a line on standard input, a case. Out: one JSON object a line on standard
output, `{"result": ...}`, `{"unsupported": reason}` or `{"error": text}`. Whatever the engine
itself prints goes to standard error. The end of standard input ends the process.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any, TextIO

from .case import Case, Options
from .contenders import Unsupported, of


def protect_output() -> TextIO:
    """Keep standard output for the protocol; prints of the engine, native ones too, go to standard
    error.
    """
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return protocol


def answer(contender: Any, state: Any, line: str) -> dict[str, object]:
    """Do one case. Errors of the engine are an answer too: the other contenders go on."""
    try:
        return {"result": contender.run(state, Case(**json.loads(line))).to_json()}
    except Unsupported as reason:
        return {"unsupported": str(reason)}
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    name, options = sys.argv[1:3]
    protocol = protect_output()
    contender, chosen = of(name, Options(**json.loads(options)))
    state = contender.load(chosen)
    try:
        for line in sys.stdin:
            protocol.write(json.dumps(answer(contender, state, line)) + "\n")
    finally:
        contender.close(state)


if __name__ == "__main__":
    main()
