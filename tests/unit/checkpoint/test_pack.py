"""Packing puts every weight where docs/architecture.md says, once, in blocks of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Gemma3nTextConfig, Gemma3nVisionConfig
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nMultimodalEmbedder

from helpers.files import F32, PLANS, hub_config, stored, write_checkpoint
from helpers.packing import packed_tensors as plainly_packed
from helpers.random_weights import SMALL
from matryo.checkpoint import pack as packing
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.pack import pack_in_memory, packed_tensors
from matryo.errors import CheckpointError
from matryo.plan import Plan, full_plan, read_plans, shell_chain
from matryo.quantize import kind_of

KINDS = ("f32", "bf16", "q8", "q4")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceSource:
    directory = tmp_path_factory.mktemp("pack")
    write_checkpoint(directory)
    return HuggingFaceSource(directory)


@pytest.fixture(scope="module")
def shells(source: HuggingFaceSource) -> list[Plan]:
    chain = shell_chain(read_plans(source.directory / "plans.json", source.config), source.config)
    assert len(chain) == 1 + len(PLANS)
    return list(chain.values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_what_plain_packing_gives(
    source: HuggingFaceSource, shells: list[Plan], kind: str
) -> None:
    weights = {name: source.read(name) for name in source.shapes}
    plain = {k: plainly_packed(weights, source.config, shells, k) for k in {kind, "q8"}}
    got = pack_in_memory(packed_tensors(source, shells, kind))
    assert got.keys() == plain[kind].keys()
    for name, array in got.items():
        is_matrix = plain["q8"][name].dtype == np.uint8
        expected = plain[kind_of(name, kind) if is_matrix else kind][name]
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape), name
        assert np.array_equal(array, expected), name
        assert not array.flags.writeable


def test_sizes_are_known_before_anything_is_packed(
    source: HuggingFaceSource, shells: list[Plan]
) -> None:
    for tensor in packed_tensors(source, shells, "q4"):
        blocks = list(tensor.blocks())
        assert tensor.num_bytes == sum(block.nbytes for block in blocks)
        assert tensor.stored[1][0] == sum(len(block) for block in blocks)


def test_small_blocks_and_a_later_start_give_the_same_bytes(
    source: HuggingFaceSource, shells: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pack_in_memory(packed_tensors(source, shells, "q4"))
    monkeypatch.setattr(packing, "BLOCK_WEIGHTS", 1500)
    most = 0
    for tensor in packed_tensors(source, shells, "q4"):
        blocks = list(tensor.blocks())
        most = max(most, len(blocks))
        assert np.array_equal(np.concatenate(blocks), whole[tensor.name]), tensor.name
        for first in {0, len(blocks) // 2, len(blocks)}:
            later = list(tensor.blocks(first))
            assert [b.tobytes() for b in later] == [b.tobytes() for b in blocks[first:]], (
                tensor.name
            )
    assert most > 10


def test_each_weight_is_in_one_shell_and_the_first_runs_alone(
    source: HuggingFaceSource, shells: list[Plan]
) -> None:
    tensors = packed_tensors(source, shells, "f32")
    assert len({tensor.name for tensor in tensors}) == len(tensors)
    alone = {tensor.name for tensor in packed_tensors(source, shells[:1], "f32")}
    assert {tensor.name for tensor in tensors if tensor.shell == 0} == alone
    units = {layer: 0 for layer in range(source.config.num_layers)}
    for tensor in tensors:
        if tensor.name.endswith(".gate"):
            units[int(tensor.name.split(".")[1])] += tensor.shape[0]
    assert tuple(units.values()) == source.config.ffn_width


def test_one_shell_of_one_size_is_the_whole(source: HuggingFaceSource) -> None:
    full = [full_plan(source.config)]
    weights = {name: source.read(name) for name in source.shapes}
    expected = plainly_packed(weights, source.config, full, "f32")
    got = pack_in_memory(packed_tensors(source, full, "f32"))
    assert got.keys() == expected.keys()
    assert all(np.array_equal(got[name], expected[name]) for name in got)


def test_progress_ends_where_it_says(source: HuggingFaceSource, shells: list[Plan]) -> None:
    seen: list[tuple[int, int, str]] = []
    pack_in_memory(packed_tensors(source, shells, "q4"), lambda *step: seen.append(step))
    done = [step[0] for step in seen]
    assert done == sorted(done)
    assert (
        seen[-1][0] == seen[-1][1] == sum(t.num_bytes for t in packed_tensors(source, shells, "q4"))
    )


MEDIA = 16  # ids of each tower in SMALL


def towers(rng: np.random.Generator) -> dict[str, dict[str, F32]]:
    """Embedders of two towers of widths 24 and 40."""
    return {
        tower: {
            "embedding": rng.standard_normal((MEDIA, width)).astype(np.float32),
            "hard_embedding_norm": rng.normal(1.0, 0.3, width).astype(np.float32),
            "soft_embedding_norm": rng.normal(1.0, 0.3, width).astype(np.float32),
            "embedding_projection": rng.standard_normal((SMALL["hidden_size"], width)).astype(
                np.float32
            ),
        }
        for tower, width in (("vision", 24), ("audio", 40))
    }


def write_multimodal(directory: Path, parts: dict[str, dict[str, F32]]) -> HuggingFaceSource:
    more = {
        f"model.embed_{tower}.{name}.weight": stored(values, "F32")
        for tower, tensors in parts.items()
        for name, values in tensors.items()
    }
    config = {"model_type": "gemma3n", "text_config": hub_config()}
    write_checkpoint(directory, config=config, prefix="model.language_model.", more=more)
    return HuggingFaceSource(directory)


def test_rows_of_media_ids_are_those_of_the_reference(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    parts = towers(rng)
    source = write_multimodal(tmp_path, parts)
    got = pack_in_memory(packed_tensors(source, [full_plan(source.config)], "f32"))["multimodal"]
    text = Gemma3nTextConfig(hidden_size=SMALL["hidden_size"])
    for first, (tower, tensors) in zip((0, MEDIA), parts.items(), strict=True):
        offset = SMALL["vocab_size_per_layer_input"] + first
        media = Gemma3nVisionConfig(
            hidden_size=tensors["embedding"].shape[1], vocab_size=MEDIA, vocab_offset=offset
        )
        embedder = Gemma3nMultimodalEmbedder(media, text)
        embedder.load_state_dict(
            {f"{n}.weight": torch.from_numpy(v) for n, v in tensors.items()}, strict=False
        )
        with torch.no_grad():
            expected = embedder(input_ids=torch.arange(offset, offset + MEDIA)).numpy()
        np.testing.assert_allclose(
            got[first : first + MEDIA], expected, rtol=1e-5, atol=1e-6, err_msg=tower
        )


@pytest.mark.parametrize(
    ("tower", "name", "shape", "message"),
    [
        ("audio", "embedding", (MEDIA, 41), r"hard_embedding_norm\.weight: wrong shape"),
        ("audio", "embedding", (MEDIA + 1, 40), "do not fill the ids above the text vocabulary"),
        ("vision", "embedding", (MEDIA, 24, 1), r"embed_vision\.embedding\.weight: wrong shape"),
        ("vision", "embedding", (0, 24), r"embed_vision\.embedding\.weight: wrong shape"),
        ("vision", "embedding_projection", (24, 64), r"embedding_projection\.weight: wrong shape"),
        ("vision", "hard_embedding_norm", (1,), r"hard_embedding_norm\.weight: wrong shape"),
        ("vision", "hard_embedding_norm", None, r"hard_embedding_norm\.weight: tensor is missing"),
    ],
)
def test_a_broken_embedder_of_a_tower_is_named(
    tmp_path: Path,
    rng: np.random.Generator,
    tower: str,
    name: str,
    shape: tuple[int, ...] | None,
    message: str,
) -> None:
    parts = towers(rng)
    if shape is None:
        del parts[tower][name]
    else:
        parts[tower][name] = np.ones(shape, np.float32)
    source = write_multimodal(tmp_path, parts)
    with pytest.raises(CheckpointError, match=message):
        pack_in_memory(packed_tensors(source, [full_plan(source.config)], "f32"))
