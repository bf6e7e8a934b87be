"""timm's own picture encoder with weights of ours.

timm and torchvision are optional: `pip install --no-deps timm==1.0.31 torchvision==0.28.0`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from helpers.mobilenet import STEM, Arch

F32 = npt.NDArray[np.float32]


def timm_features(
    state: Mapping[str, F32], arch: Arch, pixels: F32, side: int, stem: int = STEM
) -> F32:
    """Features (side², 2048) of one picture (3, H, W)."""
    from timm.models import create_model
    from timm.models._efficientnet_builder import decode_arch_def

    model = create_model(
        "mobilenetv5_300m_enc",
        block_args=decode_arch_def([list(stage) for stage in arch]),  # type: ignore[no-untyped-call]
        stem_size=stem,
        msfa_output_resolution=side,
    )
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    model.train(False)
    with torch.no_grad():
        grid = model(torch.from_numpy(pixels)[None])
    result: F32 = grid[0].flatten(1).T.contiguous().numpy()
    return result
