"""Picture encoders for onnxruntime and OpenVINO: `python -m benchmarks.picture_export MODELS`.

In: `MODELS/towers-hf`. Out, in `MODELS/pictures`: `{model}-{side}.onnx` in float32,
`{model}-{side}-int8.onnx`, quantised statically by onnxruntime's tools (weights int8 per output
channel, activations uint8 per tensor, QDQ), `{model}-{side}-nncf.xml`, quantised by NNCF for
OpenVINO, and `parameters.json`. Ranges of activations are those of random pictures at the smallest
size, where they take the least memory; the names of a graph's tensors are the same at every size.
Run it in an environment of its own: torch 2.13, timm 1.0.31, onnx, onnxscript, onnxruntime,
openvino, nncf. It needs 6 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from .picture_models import mobilenet, parameters, picture, sovit

CALIBRATION_PICTURES = 4
INPUT = "pixels"
QUANTISED = ["Conv", "MatMul", "Gemm"]
"""Operations that onnxruntime's tools quantise here."""


def export(model: Any, side: int, path: Path) -> None:
    """Trace the encoder at one size: a graph with fixed shapes is what engines optimise best."""
    import torch

    pool = torch.nn.functional.avg_pool2d

    def constant_pool(x: Any, kernel_size: Any, stride: Any) -> Any:
        """The exporter does not take sizes that timm computes from shapes."""
        return pool(x, [int(size) for size in kernel_size], [int(size) for size in stride])

    pixels = torch.from_numpy(picture(side))[None]
    with (
        torch.inference_mode(),
        mock.patch.object(torch.nn.functional, "avg_pool2d", constant_pool),
    ):
        torch.onnx.export(
            model, (pixels,), str(path), input_names=[INPUT], output_names=["features"],
            opset_version=18, dynamo=False,
        )  # fmt: skip


def pictures(side: int) -> Iterator[dict[str, np.ndarray]]:
    for seed in range(CALIBRATION_PICTURES):
        yield {INPUT: picture(side, seed + 1)[None]}


def ranges(path: Path, side: int) -> Any:
    """Lowest and highest value of every activation that is quantised; kept beside the graph.

    onnxruntime's own calibration looks through the whole graph for every tensor, which takes long.
    """
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import TensorsData

    kept = path.with_suffix(".ranges.npz")
    if not kept.exists():
        np.savez(kept, **measured_ranges(path, side))
    known = {
        name: (np.float32(low), np.float32(high)) for name, (low, high) in np.load(kept).items()
    }
    return TensorsData(CalibrationMethod.MinMax, known)


def measured_ranges(path: Path, side: int) -> dict[str, np.ndarray]:
    """Run the graph with all those activations as outputs."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    constants = {one.name for one in model.graph.initializer}
    names = dict.fromkeys(
        tensor
        for node in model.graph.node
        if node.op_type in QUANTISED
        for tensor in (*node.input[:2], *node.output)
        if tensor not in constants
    )
    have = {one.name for one in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in have
    )
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        onnx.save(model, f"{folder}/all.onnx")
        del model
        session = onnxruntime.InferenceSession(f"{folder}/all.onnx")
        for one in pictures(side):
            for name, value in zip(names, session.run(list(names), one), strict=True):
                low, high = found.get(name, np.array([np.inf, -np.inf], np.float32))
                found[name] = np.array([min(low, value.min()), max(high, value.max())], np.float32)
    return found


def quantize(path: Path, target: Path, found: Any) -> None:
    """Static QDQ with given ranges."""
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    quantizer = QDQQuantizer(
        onnx.load(str(path)), True, False, QuantType.QInt8, QuantType.QUInt8, found,
        [], [], QUANTISED, {},
    )  # fmt: skip
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(target), use_external_data_format=False)


def quantize_nncf(path: Path, target: Path, side: int) -> None:
    """OpenVINO's own quantisation, calibrated on pictures of the size itself."""
    import nncf
    import openvino

    model = openvino.Core().read_model(path)
    data = nncf.Dataset([one[INPUT] for one in pictures(side)])
    quantised = nncf.quantize(model, data, subset_size=CALIBRATION_PICTURES)
    openvino.save_model(quantised, target, compress_to_fp16=False)


def write(folder: Path, name: str, sides: Sequence[int], nncf: bool, again: bool) -> None:
    """Every form of one encoder; what is there already is kept."""
    target = folder / "pictures"
    target.mkdir(exist_ok=True)
    found: Any = None
    for side in sorted(sides):
        path = target / f"{name}-{side}.onnx"
        if again or not path.exists():
            started = time.monotonic()
            model = mobilenet(folder) if name == "mobilenet" else sovit(side)
            export(model, side, path)
            note_parameters(target, name, parameters(model))
            del model
            print(f"{path.name}: {time.monotonic() - started:.0f} s", flush=True)
        int8 = target / f"{name}-{side}-int8.onnx"
        if again or not int8.exists():
            started = time.monotonic()
            if found is None:
                smallest = min(sides_of(target, name))
                found = ranges(target / f"{name}-{smallest}.onnx", smallest)
            quantize(path, int8, found)
            print(f"{int8.name}: {time.monotonic() - started:.0f} s", flush=True)
        ir = target / f"{name}-{side}-nncf.xml"
        if nncf and (again or not ir.exists()):
            started = time.monotonic()
            quantize_nncf(path, ir, side)
            print(f"{ir.name}: {time.monotonic() - started:.0f} s", flush=True)


def sides_of(target: Path, name: str) -> list[int]:
    """Of the graphs that are there."""
    names = (path.stem.removeprefix(f"{name}-") for path in target.glob(f"{name}-*.onnx"))
    return [int(side) for side in names if side.isdigit()]


def note_parameters(target: Path, name: str, count: int) -> None:
    path = target / "parameters.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, name: count}) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picture_export",
                                     description=__doc__)  # fmt: skip
    parser.add_argument("directory", type=Path)
    parser.add_argument("--model", choices=("mobilenet", "sovit"), default="mobilenet")
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 768])
    parser.add_argument("--no-nncf", action="store_true")
    parser.add_argument("--again", action="store_true", help="also what is there")
    chosen = parser.parse_args(arguments)
    write(chosen.directory, chosen.model, chosen.sides, not chosen.no_nncf, chosen.again)


if __name__ == "__main__":
    main()
