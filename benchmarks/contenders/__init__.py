"""One engine a file, each with the same four functions.

`available(options) -> (bool, reason)` without side effects; `load(options) -> State` prepares it
(weights may be read at the first case that needs them); `run(state, case) -> Result` does one
repetition; `close(state)` frees everything. A contender runs in a process of its own
(`benchmarks.worker`). Not available is a line in the report, not a failure.
"""

from __future__ import annotations

NAMES = ("ours", "llama_cpp", "llama_cpp_mix", "transformers_cpu", "openvino_genai")
TITLES = {
    "ours": "Matryo",
    "llama_cpp": "llama.cpp",
    "llama_cpp_mix": "llama.cpp (default mix)",
    "transformers_cpu": "transformers",
    "openvino_genai": "OpenVINO GenAI",
}


class Unsupported(Exception):
    """The contender cannot do this case; the report says so."""
