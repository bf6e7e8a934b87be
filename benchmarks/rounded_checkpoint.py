"""A checkpoint with some of its matrices rounded, written as float32: what the weights alone do.

In: a Hugging Face directory, a rounding for each tensor family. Out: a directory of the same model
whose arithmetic is float32 everywhere, so that only the rounding of the weights shows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from .synthetic.values import from_bf16

F32 = npt.NDArray[np.float32]
Rounding = Callable[[F32], F32]
FAMILIES = {
    "embed_tokens_per_layer": "ple",
    "embed_tokens": "embed",
    "per_layer_model_projection": "ple_model_projection",
    "altup_projections": "altup_projection",
    "altup_unembed_projections": "altup_unembed",
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "o_proj": "o",
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
    "linear_left": "laurel_left",
    "linear_right": "laurel_right",
    "per_layer_input_gate": "ple_gate",
    "per_layer_projection": "ple_projection",
}
"""Part of a Hugging Face name -> the packer's word for the family."""
LARGE = ("embed", "ple", "q", "k", "v", "o", "gate", "up", "down")
NARROW = tuple(sorted(set(FAMILIES.values()) - set(LARGE)))


def family(name: str) -> str:
    """The family of a matrix; empty for what is never quantised."""
    words = name.split(".")
    return next((FAMILIES[word] for word in words if word in FAMILIES), "")


def read(directory: Path) -> dict[str, F32]:
    """Every tensor of a directory as float32; bf16 and f32 files."""
    found: dict[str, F32] = {}
    for path in sorted(directory.glob("*.safetensors")):
        data = np.memmap(path, np.uint8, "r")
        start = 8 + int.from_bytes(data[:8].tobytes(), "little")
        for name, entry in json.loads(data[8:start].tobytes()).items():
            if name == "__metadata__":
                continue
            begin, end = (start + offset for offset in entry["data_offsets"])
            raw = data[begin:end].tobytes()
            match entry["dtype"]:
                case "BF16":
                    values = from_bf16(np.frombuffer(raw, np.uint16))
                case "F32":
                    values = np.frombuffer(raw, np.float32)
                case other:
                    raise ValueError(f"{path.name}: {name} is {other}, expected BF16 or F32")
            found[name] = values.reshape(entry["shape"])
    return found


def write(source: Path, target: Path, roundings: Mapping[str, Rounding]) -> None:
    """Write `target` with the families in `roundings` rounded."""
    target.mkdir(parents=True)
    tensors = read(source)
    for name, values in tensors.items():
        if values.ndim == 2 and family(name) in roundings:
            tensors[name] = roundings[family(name)](np.ascontiguousarray(values))
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    for path in source.iterdir():
        if "safetensors" not in path.name:
            shutil.copyfile(path, target / path.name)
    config = json.loads((target / "config.json").read_text())
    config["dtype"] = "float32"
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n")
