"""Rows of tables, through `datasets`: what `save_to_disk` wrote, or a .parquet or .arrow file.

In: a path. Out: plain dictionaries, one a row, without the empty fields that a table gives to rows
which lack them. A picture or a sound is what its column holds: {bytes, path}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matryo.errors import CheckpointError, ConfigError

SUFFIXES = (".parquet", ".arrow")


def is_table(path: Path) -> bool:
    """True for a table file, and for a directory that `save_to_disk` wrote."""
    return path.suffix in SUFFIXES or (path / "dataset_info.json").is_file()


def table_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Raises ConfigError without `datasets`, CheckpointError for a table that cannot be read."""
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(f"{path.name} needs datasets; pip install 'matryo[train]'") from error
    table: Any
    try:
        if path.is_dir():
            table = datasets.load_from_disk(str(path))
        elif path.suffix == ".arrow":
            table = datasets.Dataset.from_file(str(path))
        else:
            import pyarrow.parquet

            table = datasets.Dataset(pyarrow.parquet.read_table(path))
    except Exception as error:  # whatever a broken file makes its readers raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"cannot be read as a table: {reason}", file=str(path)) from error
    # Not decoded: rows take a picture or a sound as {bytes, path}. `cast` would copy the table into
    # files beside it.
    features = {name: _undecoded(one, datasets) for name, one in table.features.items()}
    info = datasets.DatasetInfo(features=datasets.Features(features))
    for row in datasets.Dataset(table.data, info):
        yield _filled(row)


def _undecoded(feature: Any, datasets: Any) -> Any:
    """The same feature; pictures, sounds and videos inside it stay bytes or a path."""
    if isinstance(feature, (datasets.Image, datasets.Audio, datasets.Video)):
        return dataclasses.replace(feature, decode=False)
    if isinstance(feature, dict):
        return {name: _undecoded(one, datasets) for name, one in feature.items()}
    if isinstance(feature, list):
        return [_undecoded(one, datasets) for one in feature]
    if isinstance(feature, (datasets.List, datasets.LargeList)):
        return dataclasses.replace(feature, feature=_undecoded(feature.feature, datasets))
    return feature


def _filled(value: Any) -> Any:
    """Without fields that are None."""
    if isinstance(value, dict):
        return {key: _filled(entry) for key, entry in value.items() if entry is not None}
    return [_filled(entry) for entry in value] if isinstance(value, list) else value
