"""What the numbers were taken on: processor, memory, operating system, versions, commit.

In: nothing but the machine. Out: `describe()`, a JSON object that every result file carries.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

REPORTED_FLAGS = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "asimd",
    "asimddp", "i8mm", "sve",
)  # fmt: skip
REPORTED_PACKAGES = (
    "matryo",
    "numpy",
    "torch",
    "transformers",
    "timm",
    "onnxruntime",
    "openvino",
    "openvino-genai",
    "nncf",
    "gguf",
)


def parse_cpuinfo(text: str) -> tuple[str, list[str]]:
    """(model name, instruction-set flags worth reporting) from the text of /proc/cpuinfo."""
    model, flags = "", set[str]()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        key = key.strip().lower()
        if key == "model name" and not model:
            model = value.strip()
        elif key in ("flags", "features"):
            flags.update(value.split())
    return model, [flag for flag in REPORTED_FLAGS if flag in flags]


def parse_meminfo(text: str) -> int:
    """Total memory in bytes from the text of /proc/meminfo. Raises ValueError if it is not said."""
    for line in text.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise ValueError("/proc/meminfo has no MemTotal line")


def versions() -> dict[str, str]:
    """Installed versions of the packages that take part."""
    found = {"python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The checked-out commit, with `+` if the sources differ from it; empty outside a clone."""
    root = Path(__file__).parent.parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, timeout=30, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    return head + ("+" if head and git("status", "--porcelain", "--", "src", "native") else "")


def governor() -> str:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else "not visible"


def describe() -> dict[str, object]:
    """Everything a reader needs to judge or repeat the numbers."""
    model, flags = parse_cpuinfo(Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model or platform.processor() or platform.machine(),
        "flags": flags,
        "cpus": os.cpu_count(),
        "governor": governor(),
        "memory_bytes": parse_meminfo(Path("/proc/meminfo").read_text()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": versions(),
        "commit": commit(),
    }
