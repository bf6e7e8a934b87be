"""What lies beside the weights of a checkpoint: tokenizer, templates, settings, plans.

In: a checkpoint directory. Out: its plans, or copies of its small files. Nothing of it is
interpreted here but plans.json.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from matryo.checkpoint.atomic import copy_file
from matryo.config import TextConfig
from matryo.errors import CheckpointError, PlanError
from matryo.plan import Plan, read_plans

CONFIG, PLANS = "config.json", "plans.json"
TEXT_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "generation_config.json",
    "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
_MAX_BYTES = 256 << 20


def plans_beside(directory: Path, config: TextConfig) -> dict[str, Plan]:
    """The presets, and what plans.json says. Raises CheckpointError if that is broken."""
    try:
        return read_plans(directory / PLANS, config)
    except PlanError as error:
        raise CheckpointError(str(error)) from error


def copy_beside(source: Path, target: Path, names: Iterable[str] = TEXT_FILES) -> None:
    """Copies those of the files that there are.

    Raises CheckpointError if one is no plain file of reasonable size.
    """
    for name in names:
        path = source / name
        if not path.exists():
            continue
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            raise CheckpointError(
                f"expected a file of at most {_MAX_BYTES >> 20} MB", file=str(path)
            )
        copy_file(path, target / name)
