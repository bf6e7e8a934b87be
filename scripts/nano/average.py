"""The weighted mean of checkpoints of one run that went on from stage to stage.

In: Hugging Face directories and how much each counts. Out: such a directory; all but the weights is
the first one's.

    python -m scripts.nano.average OUTPUT words8/hf=0.55 words9/hf=0.45

What a mix of rows taught at the end of one stage is partly lost in the next one; their mean keeps
both and is better than either (docs/log.md, 2026-11-26).
Source: Izmailov et al., 2018 (stochastic weight averaging); Wortsman et al., 2022 (model soups).
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def average(shares: Mapping[Path, float], target: Path) -> None:
    """Writes `target`, which must not be there. Raises ValueError if the shares are not 1 together
    or checkpoints differ in names or shapes of tensors, FileExistsError.
    """
    if not math.isclose(sum(shares.values()), 1) or min(shares.values()) < 0:
        raise ValueError(f"shares are {list(shares.values())}; expected positive ones, 1 together")
    if target.exists():
        raise FileExistsError(f"{target} is there already")
    means: dict[str, torch.Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for source, share in shares.items():
        tensors = load_file(source / WEIGHTS)
        if not kinds:
            kinds = {name: tensor.dtype for name, tensor in tensors.items()}
            means = {name: torch.zeros_like(t, dtype=torch.float32) for name, t in tensors.items()}
        if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in means.items()}:
            raise ValueError(f"{source}: tensors of other names or shapes than the first's")
        for name, tensor in tensors.items():
            means[name] += share * tensor.float()
    first = next(iter(shares))
    with tempfile.TemporaryDirectory(dir=target.parent) as made:
        part = Path(made) / target.name
        shutil.copytree(first, part, ignore=shutil.ignore_patterns(WEIGHTS))
        save_file(
            {name: mean.to(kinds[name]) for name, mean in means.items()},
            part / WEIGHTS,
            {"format": "pt"},
        )
        part.rename(target)


def main() -> None:
    """average.py OUTPUT DIRECTORY=SHARE …"""
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    target, *sources = sys.argv[1:]
    pairs = [source.rpartition("=") for source in sources]
    average({Path(path): float(share) for path, _, share in pairs}, Path(target))


if __name__ == "__main__":
    main()
