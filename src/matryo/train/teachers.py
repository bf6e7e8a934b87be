"""Another model as a teacher: any causal language model of transformers with the same tokenizer.

In: a directory, a corpus. Out: for each step's rows what the teacher expects after every token,
computed then (`OnlineTeacher`), or read from a file that holds its K likeliest ids for every row
(`CachedTeacher`), which is made once. Nothing of the teacher ever has a gradient.

B rows · T tokens of a row · K ids kept · V vocab
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM

from matryo.checkpoint.atomic import check_space, replace_text, replacing
from matryo.errors import CheckpointError, ConfigError
from matryo.train.batch import Batch
from matryo.train.data import SAMPLE
from matryo.train.dense import head_of, is_plain_head
from matryo.train.head import Head
from matryo.train.pretrained import read_model, read_tokenizer
from matryo.train.topk import TopTargets

I64 = npt.NDArray[np.int64]

IDS, VALUES, INDEX = "ids.bin", "log-probabilities.bin", "teacher.json"
LOWEST = -6e4  # a log probability that 16 bits hold
_FORMAT = 1


class OnlineTeacher:
    """A teacher that runs beside the student, on the device of the ids that it is given."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, ids: torch.Tensor) -> Head:
        """Final states and head for ids (B, T); its logits are `softcap·tanh(h Wᵀ / softcap)`."""
        return head_of(self.model.to(ids.device), ids)


class CachedTeacher:
    """A teacher's K likeliest ids for every token of rows of one length, from files.

    A row is found by its ids, wherever in a batch it stands.
    Raises CheckpointError if the files are broken or of other texts, rows or another teacher.
    """

    def __init__(
        self, directory: Path, key: str, rows: Callable[[int], I64], num_rows: int, top: int
    ) -> None:
        """rows: the ids (T,) of a row by its number, as they were when the files were made."""
        index = read_index(directory)
        if index.get("key") != key:
            raise CheckpointError(
                "of another teacher, other texts or another length: delete it to make it again",
                file=str(directory),
            )
        self._places = {rows(number).tobytes(): number for number in range(num_rows)}
        shape = (num_rows, len(rows(0)), top)
        for name, item in ((IDS, 4), (VALUES, 2)):
            path, wanted = directory / name, item * shape[0] * shape[1] * shape[2]
            size = path.stat().st_size if path.is_file() else -1
            if size != wanted:
                raise CheckpointError(
                    "is broken: delete its directory", file=str(path),
                    expected=f"{wanted} bytes", got=str(size),
                )  # fmt: skip
            if _digest(path) != index.get(name):
                raise CheckpointError("is broken: delete its directory", file=str(path))
        self._ids = np.memmap(directory / IDS, "<i4", "r", shape=shape)
        self._values = np.memmap(directory / VALUES, "<f2", "r", shape=shape)

    def __call__(self, ids: torch.Tensor) -> TopTargets:
        """What it expects after ids (B, T): (B, T, K). Raises CheckpointError for unknown rows."""
        found = [self._places.get(row.tobytes(), -1) for row in ids.cpu().numpy()]
        if min(found) < 0:
            raise CheckpointError("a row is not in the teacher's file: delete it to make it again")
        return TopTargets(
            torch.from_numpy(self._ids[found].astype(np.int64)).to(ids.device),
            torch.from_numpy(self._values[found].astype(np.float32)).to(ids.device),
        )


Teacher = OnlineTeacher | CachedTeacher


def expected(teacher: Teacher, batch: Batch) -> Head | TopTargets:
    """What a teacher expects after every id of a batch. Raises ConfigError for pictures and sounds,
    which it cannot see.
    """
    if batch.media:
        raise ConfigError("teacher.model reads text alone; these rows have pictures or sounds")
    return teacher(batch.input_ids)


def open_teacher(source: Path, tokenizer: Any) -> OnlineTeacher:
    """The model at `source`, if its tokenizer gives the ids that `tokenizer` gives.

    tokenizer: one of ours. Raises CheckpointError if transformers cannot open it or a tensor is
    missing, ConfigError if its ids or its logits are not what is needed.
    """
    if not (source / "config.json").is_file():
        raise CheckpointError("holds no Hugging Face checkpoint", file=str(source))
    model, theirs = read_model(AutoModelForCausalLM, source), read_tokenizer(source)
    wanted = list(tokenizer.encode(SAMPLE))
    got = list(theirs(SAMPLE, add_special_tokens=False).input_ids)
    if got != wanted or len(theirs) != len(tokenizer):
        raise ConfigError(
            f"the teacher {source} has another tokenizer ({len(theirs)} tokens, ours "
            f"{len(tokenizer)}): its expectations are about other ids; a teacher must share it"
        )
    if not is_plain_head(model):
        raise ConfigError(
            f"the teacher {source} computes its logits from more than its last hidden states and "
            "one matrix; it cannot be used"
        )
    return OnlineTeacher(model)


def make_cache(
    teacher: OnlineTeacher,
    directory: Path,
    key: str,
    rows: Callable[[int], I64],
    num_rows: int,
    top: int,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes the K likeliest ids of every row, unless the files are there; the index comes last.

    rows: the ids (T,) of a row by its number. Raises CapacityError if the disk is too small.
    """
    if (directory / INDEX).exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    check_space(directory, 6 * num_rows * len(rows(0)) * top)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    with replacing(directory / IDS) as ids_file, replacing(directory / VALUES) as values_file:
        for number in range(num_rows):
            ids = torch.from_numpy(rows(number))[None].to(device)
            with torch.no_grad():
                logits = teacher(ids).logits()[0].float()
            best = torch.log_softmax(logits, -1).topk(top)
            ids_file.write(best.indices.cpu().numpy().astype("<i4").tobytes())
            values = best.values.clamp(min=LOWEST)
            values_file.write(values.cpu().numpy().astype("<f2").tobytes())
            progress(number + 1, num_rows)
    digests = {name: _digest(directory / name) for name in (IDS, VALUES)}
    replace_text(directory / INDEX, json.dumps({"key": key, **digests}) + "\n")


def cache_key(source: Path, texts: str, sequence: int, top: int) -> str:
    """Of what a cache depends on: the teacher's files, the texts' digest, the rows' length."""
    parts: list[object] = [_FORMAT, texts, sequence, top]
    for path in sorted(source.glob("*.safetensors")):
        status = path.stat()
        parts.append([path.name, status.st_size, status.st_mtime_ns])
    parts.append((source / "config.json").read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_index(directory: Path) -> dict[str, Any]:
    """teacher.json of a cache. Raises CheckpointError."""
    try:
        index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError("is broken: delete it", file=str(directory / INDEX)) from error
    if not isinstance(index, dict):
        raise CheckpointError("is broken: delete it", file=str(directory / INDEX))
    return index


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
