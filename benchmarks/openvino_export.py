"""Export a random checkpoint for OpenVINO GenAI: `python -m benchmarks.openvino_export MODELS
SIZE`.

In: `{size}-hf`. Out: `{size}-openvino`, all matrices 4-bit symmetric in groups of 64 (smaller where
a matrix has fewer columns). Run it with PYTHONPATH=src in an environment of its own: the export
works with optimum-intel 2.2.0, nncf 3.4.0 and exactly transformers 5.0.0. E2B takes about five
minutes, 16 GB of memory and, between the steps, 14 GB of disk.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from matryo.train import importable


def export(source: Path, target: Path) -> None:
    """Trace the model into an uncompressed OpenVINO graph with its cache as state."""
    importable.install()
    from optimum.exporters.openvino import main_export

    main_export(str(source), str(target), task="text-generation-with-past")


def compress(source: Path, target: Path) -> None:
    """All weights to 4 bits, head and tables too: the fewest bytes a token that it offers."""
    import nncf
    import openvino

    model = openvino.Core().read_model(source / "openvino_model.xml")
    settings = nncf.AdvancedCompressionParameters(
        group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
    )
    model = nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT4_SYM,
        group_size=64,
        ratio=1.0,
        all_layers=True,
        advanced_parameters=settings,
    )
    target.mkdir(exist_ok=True)
    openvino.save_model(model, target / "openvino_model.xml", compress_to_fp16=False)
    for file in source.iterdir():
        if not file.name.startswith("openvino_model"):
            shutil.copyfile(file, target / file.name)


def main() -> None:
    models, size = Path(sys.argv[1]), sys.argv[2]
    between = models / f"{size}-openvino-uncompressed"
    export(models / f"{size}-hf", between)
    compress(between, models / f"{size}-openvino")
    shutil.rmtree(between)


if __name__ == "__main__":
    main()
