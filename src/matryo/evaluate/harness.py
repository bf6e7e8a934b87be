"""lm-evaluation-harness with the model `matryo`: `python -m matryo.evaluate.harness …`.

In: the arguments of `lm_eval`. Out: what it does, with one more model. The harness has no plug-ins:
a model is known to it once its class was imported, which this does.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run `lm_eval` on the arguments of this process; returns the exit code."""
    try:
        from lm_eval.__main__ import cli_evaluate

        from matryo.evaluate.harness_model import MatryoLM
    except ImportError as error:
        print(f"error: this needs lm-eval: pip install 'matryo[eval]' ({error})", file=sys.stderr)
        return 1
    del MatryoLM  # known to the harness by now
    cli_evaluate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
