"""Other models as teachers: the same expectations online and from a file, and never a gradient."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.dense import dense_directory
from helpers.recipes import TOKENIZER, VOCABULARY
from matryo.errors import CheckpointError, ConfigError
from matryo.inputs.tokenizer import Tokenizer
from matryo.train import dense
from matryo.train.head import Head, head_loss
from matryo.train.teachers import (
    CachedTeacher,
    OnlineTeacher,
    cache_key,
    make_cache,
    open_teacher,
)
from matryo.train.topk import topk_loss

ROWS = torch.randint(1, 4096, (3, 9), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_directory(tmp_path_factory.mktemp("teacher"), "gemma3_text", vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(TOKENIZER / "tokenizer.json", bos_id=2)


@pytest.fixture(scope="module")
def teacher(place: Path, tokenizer: Tokenizer) -> OnlineTeacher:
    return open_teacher(place, tokenizer)


def student() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    states = torch.randn(3, 9, 8, generator=g).requires_grad_(True)
    return states, torch.randn(VOCABULARY, 8, generator=g).requires_grad_(True)


def test_online_expectations_are_its_logits(teacher: OnlineTeacher) -> None:
    with torch.no_grad():
        wanted = teacher.model(ROWS).logits
    assert torch.allclose(teacher(ROWS).logits(), wanted, atol=1e-5)


def test_a_teacher_follows_its_ids_to_their_device(
    teacher: OnlineTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The masks of a pass need values, which a tensor without memory has not.
    monkeypatch.setattr(dense, "hidden_states", lambda model, ids: ids)
    moved = OnlineTeacher(copy.deepcopy(teacher.model))
    assert moved(ROWS.to("meta")).weight.device.type == moved.model.device.type == "meta"


def test_a_file_is_made_on_the_accelerator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def current_accelerator(check_available: bool) -> torch.device:
        assert check_available
        return torch.device("meta")

    class Asked(Exception):
        pass

    def teacher(ids: torch.Tensor) -> None:
        raise Asked(ids.device.type)

    monkeypatch.setattr(torch.accelerator, "current_accelerator", current_accelerator)
    with pytest.raises(Asked, match="meta"):
        make_cache(teacher, tmp_path, "key", rows_of, 3, 4)  # type: ignore[arg-type]


def test_the_loss_is_a_plain_computation_without_gradients_for_the_teacher(
    teacher: OnlineTeacher,
) -> None:
    hidden, weight = student()
    labels = ROWS.roll(-1, 1)
    found = head_loss(
        Head(hidden, weight, 0.0), labels, teacher=teacher(ROWS), cross_entropy=0.5, divergence=2.0
    )
    found.loss.backward()
    with torch.no_grad():
        theirs = torch.log_softmax(teacher.model(ROWS).logits, -1)
    ours = torch.log_softmax(hidden @ weight.T, -1)
    divergence = (theirs.exp() * (theirs - ours)).sum(-1).mean()
    entropy = -ours.gather(2, labels[..., None]).mean()
    assert found.loss.item() == pytest.approx((0.5 * entropy + 2 * divergence).item(), rel=1e-4)
    assert hidden.grad is not None and hidden.grad.any()
    assert all(w.grad is None and not w.requires_grad for w in teacher.model.parameters())


def rows_of(number: int) -> Any:
    return ROWS[number].numpy()


def test_a_file_of_all_ids_teaches_what_the_model_teaches(
    teacher: OnlineTeacher, place: Path, tmp_path: Path
) -> None:
    key = cache_key(place, "texts", 9, VOCABULARY)
    make_cache(teacher, tmp_path, key, rows_of, 3, VOCABULARY)
    cached = CachedTeacher(tmp_path, key, rows_of, 3, VOCABULARY)
    order = [2, 0]
    hidden, weight = student()
    labels = ROWS.roll(-1, 1)[order]
    found = topk_loss(Head(hidden[order], weight, 0.0), labels, cached(ROWS[order]))
    online = head_loss(
        Head(hidden[order], weight, 0.0), labels, teacher=teacher(ROWS[order]), divergence=1.0
    )
    assert found.loss.item() == pytest.approx(online.loss.item(), rel=2e-3)  # stored in 16 bits


def test_a_file_keeps_the_likeliest_and_is_made_once(
    teacher: OnlineTeacher, place: Path, tmp_path: Path
) -> None:
    key = cache_key(place, "texts", 9, 4)
    make_cache(teacher, tmp_path, key, rows_of, 3, 4)
    make_cache(teacher, tmp_path, key, None, 3, 4)  # type: ignore[arg-type]
    targets = CachedTeacher(tmp_path, key, rows_of, 3, 4)(ROWS[1:2])
    with torch.no_grad():
        wanted = torch.log_softmax(teacher.model(ROWS[1:2]).logits, -1).topk(4)
    assert torch.equal(targets.ids, wanted.indices)
    assert torch.allclose(targets.log_probabilities, wanted.values, rtol=1e-3)


def test_files_of_something_else_are_refused(
    teacher: OnlineTeacher, place: Path, tmp_path: Path
) -> None:
    key = cache_key(place, "texts", 9, 4)
    assert key != cache_key(place, "other texts", 9, 4)
    with pytest.raises(CheckpointError, match="is broken: delete it"):
        CachedTeacher(tmp_path, key, rows_of, 3, 4)
    make_cache(teacher, tmp_path, key, rows_of, 3, 4)
    with pytest.raises(CheckpointError, match="of another teacher, other texts"):
        CachedTeacher(tmp_path, "other", rows_of, 3, 4)
    with pytest.raises(CheckpointError, match="a row is not in the teacher's file"):
        CachedTeacher(tmp_path, key, rows_of, 3, 4)(ROWS + 1)
    path = tmp_path / "ids.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(CheckpointError, match=r"ids.bin: is broken.*expected 432 bytes, got 428"):
        CachedTeacher(tmp_path, key, rows_of, 3, 4)
    changed = np.frombuffer(whole, "<i4").copy()
    changed[5] += 1
    path.write_bytes(changed.tobytes())
    with pytest.raises(CheckpointError, match="is broken"):
        CachedTeacher(tmp_path, key, rows_of, 3, 4)


def test_what_cannot_teach_is_named(place: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no Hugging Face checkpoint"):
        open_teacher(tmp_path, tokenizer)
    dense_directory(tmp_path / "other", "llama")
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Backend(WordLevel({"the": 0, "?": 1}, unk_token="?"))
    other: Any = PreTrainedTokenizerFast
    other(tokenizer_object=words).save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match="has another tokenizer"):
        open_teacher(tmp_path / "other", tokenizer)
    dense_directory(tmp_path / "scaled", "cohere", logit_scale=0.25)
    with pytest.raises(ConfigError, match="computes its logits from more"):
        open_teacher(tmp_path / "scaled", tokenizer)
