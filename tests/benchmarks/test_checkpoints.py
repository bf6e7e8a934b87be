"""Random checkpoints: both layouts hold the same values, and the smaller size is a slice of the
larger.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")

from benchmarks.checkpoints import write_checkpoints
from benchmarks.contenders.llama_logits import read_log_probabilities
from benchmarks.synthetic import hugging_face, vocabulary
from benchmarks.synthetic.gguf_file import gguf_name
from benchmarks.synthetic.shapes import Dimensions
from benchmarks.synthetic.values import from_bf16, quantize_q4_0, quantize_q6_k, to_bf16
from gguf import GGUFReader, dequantize
from tokenizers import Tokenizer

DIMENSIONS = Dimensions(
    layers=15, owners=5, sparse_layers=3, hidden=64, ffn=128, heads=4, kv_heads=2, head_dim=32,
    per_layer=32, laurel_rank=32, vocabulary=1280, per_layer_vocabulary=1024, sliding_window=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hugging_face, "SHARD_BYTES", 1 << 20)
        pieces = vocabulary.made_up(DIMENSIONS.vocabulary)
        write_checkpoints(directory, ["e4b", "e2b"], ["hf", "gguf"], DIMENSIONS, pieces, seed=0)
    return directory


def read_hugging_face(directory: Path) -> dict[str, np.ndarray]:
    """Every tensor as float32, read without any library."""
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    found = {}
    for name in set(index["weight_map"].values()):
        data = (directory / name).read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for key, entry in json.loads(data[8:start]).items():
            if key != "__metadata__":
                begin, end = entry["data_offsets"]
                bits = np.frombuffer(data[start + begin : start + end], np.uint16)
                found[key] = from_bf16(bits).reshape(entry["shape"])
                assert index["weight_map"][key] == name
    return found


@pytest.fixture(scope="module")
def large(folder: Path) -> dict[str, np.ndarray]:
    return read_hugging_face(folder / "e4b-hf")


@pytest.fixture(scope="module")
def small(folder: Path) -> dict[str, np.ndarray]:
    return read_hugging_face(folder / "e2b-hf")


def test_weights_are_spread_over_several_shards(folder: Path) -> None:
    assert len(list((folder / "e4b-hf").glob("model-*.safetensors"))) > 1


def test_the_smaller_size_is_a_slice_of_the_larger(
    large: dict[str, np.ndarray], small: dict[str, np.ndarray]
) -> None:
    kept = [*range(5), *range(10, 15)]
    for new, old in enumerate(kept):
        for matrix, rows, columns in (
            ("gate_proj", 64, 64),
            ("up_proj", 64, 64),
            ("down_proj", 64, 64),
        ):
            whole = large[f"model.layers.{old}.mlp.{matrix}.weight"]
            np.testing.assert_array_equal(
                small[f"model.layers.{new}.mlp.{matrix}.weight"], whole[:rows, :columns]
            )
        attention = "self_attn.q_proj.weight"
        np.testing.assert_array_equal(
            small[f"model.layers.{new}.{attention}"], large[f"model.layers.{old}.{attention}"]
        )
    name = "model.embed_tokens_per_layer.weight"
    slots = large[name].reshape(1024, 15, 32)[:, kept].reshape(1024, -1)
    np.testing.assert_array_equal(small[name], slots)
    name = "model.per_layer_model_projection.weight"
    np.testing.assert_array_equal(
        small[name], large[name].reshape(15, 32, 64)[kept].reshape(-1, 64)
    )


def test_multimodal_rows_of_the_embedding_are_copies_of_the_pad_row(
    large: dict[str, np.ndarray],
) -> None:
    table = large["model.embed_tokens.weight"]
    assert (table[-256:] == table[0]).all()
    assert not (table[-257] == table[0]).all()


@pytest.mark.parametrize("size", ["e4b", "e2b"])
def test_the_gguf_file_holds_the_same_values(folder: Path, size: str) -> None:
    expected = read_hugging_face(folder / f"{size}-hf")
    found = {
        t.name: dequantize(t.data, t.tensor_type)
        for t in GGUFReader(folder / f"{size}-q4_0.gguf").tensors
    }
    kinds = {t.name: t.tensor_type.name for t in GGUFReader(folder / f"{size}-q4_0.gguf").tensors}
    for name, values in expected.items():
        there = found[gguf_name(name)]
        if "altup_projections." in name or "altup_unembed_projections." in name:
            there = there[int(name.split(".")[2])]
        if name == "model.embed_tokens_per_layer.weight":
            assert (there[1024:] == 0).all()
            there = there[:1024]
        if kinds[gguf_name(name)] == "Q4_0":
            groups = values.reshape(-1, 32)
            step = np.abs(groups).max(1, keepdims=True) / 8
            # Half a step, a whole one where the extreme of the other sign is clipped, and the
            # rounding of the scale.
            assert (np.abs(there.reshape(-1, 32) - groups) <= step * 1.02).all()
        else:
            np.testing.assert_allclose(there, values, rtol=1e-3, atol=1e-6)
    assert kinds["token_embd.weight"] == kinds["per_layer_token_embd.weight"] == "Q4_0"


def test_q4_0_blocks_are_those_of_the_gguf_package() -> None:
    import gguf

    values = np.random.default_rng(0).standard_normal((7, 96), dtype=np.float32)
    values[3, :32] = 0
    theirs = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_0)
    np.testing.assert_array_equal(quantize_q4_0(values).reshape(7, -1), theirs)


def test_q6_k_blocks_are_read_by_the_gguf_package() -> None:
    import gguf

    values = np.random.default_rng(0).standard_normal((5, 512), dtype=np.float32)
    values *= np.exp(np.random.default_rng(1).uniform(-3, 3, (5, 32))).repeat(16, 1)
    values[3, :256] = 0
    blocks = quantize_q6_k(values).reshape(5, -1)
    there = dequantize(blocks, gguf.GGMLQuantizationType.Q6_K)
    largest = np.abs(values).reshape(-1, 16).max(1, keepdims=True)
    whole = np.abs(values).reshape(-1, 256).max(1).repeat(16)[:, None]
    # Half a code (one at the clipped end) and half a unit of the scale, of which 128 make a block.
    bound = largest / 32 * 1.02 + whole / 128 / 2
    assert (np.abs(there - values).reshape(-1, 16) <= bound).all()


def test_the_default_mix_keeps_head_and_table_in_six_bits(tmp_path: Path) -> None:
    dims = replace(DIMENSIONS, hidden=256, per_layer=256, ffn=128)
    pieces = vocabulary.made_up(dims.vocabulary)
    write_checkpoints(tmp_path, ["e2b"], ["gguf", "gguf-mix"], dims, pieces, seed=0)
    mixed = {t.name: t for t in GGUFReader(tmp_path / "e2b-q4_0-mix.gguf").tensors}
    pure = {t.name: t for t in GGUFReader(tmp_path / "e2b-q4_0.gguf").tensors}
    tables = {"token_embd.weight", "per_layer_token_embd.weight"}
    assert {name for name, one in mixed.items() if one.tensor_type.name == "Q6_K"} == tables
    for name, one in mixed.items():
        values = dequantize(one.data, one.tensor_type)
        other = dequantize(pure[name].data, pure[name].tensor_type)
        if name in tables:
            assert 0 < np.abs(values - other).max() < 0.1 * np.abs(other).max()
        else:
            np.testing.assert_array_equal(one.data, pure[name].data)


def test_bf16_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -2.5, 3.1415927], np.float32)
    np.testing.assert_array_equal(
        from_bf16(to_bf16(values)), np.array([1.0, 1.0, 1.015625, -2.5, 3.140625], np.float32)
    )


def test_transformers_reads_the_checkpoint_and_gives_sane_logits(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.Gemma3nForCausalLM.from_pretrained(folder / "e2b-hf", dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.arange(300, 340)[None]).logits[0]
    assert 2 < float(logits.std()) < 8
    assert float(logits.abs().max()) < 30


def test_float32_arithmetic_on_bf16_weights_gives_the_numbers_of_float32(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from benchmarks.contenders.transformers_cpu import to_float32

    def logits(dtype: object) -> np.ndarray:
        model = transformers.Gemma3nForCausalLM.from_pretrained(folder / "e2b-hf", dtype=dtype)
        if dtype == torch.bfloat16:
            to_float32(model)
        with torch.inference_mode():
            values: np.ndarray = model(torch.arange(300, 340)[None]).logits[0].float().numpy()
        return values

    np.testing.assert_allclose(logits(torch.bfloat16), logits(torch.float32), atol=2e-3)


def test_the_tokenizer_goes_there_and_back(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "e2b-hf" / "tokenizer.json"))
    ids = tokenizer.encode("a bc \u00e9").ids
    assert ids[0] == 2
    assert tokenizer.decode(ids) == "a bc \u00e9"


def test_a_made_up_vocabulary_has_gemmas_size_and_special_tokens() -> None:
    pieces = vocabulary.made_up(262400)
    assert (
        len(set(pieces.tokens))
        == len(pieces.tokens)
        == len(pieces.scores)
        == len(pieces.types)
        == 262400
    )
    assert pieces.tokens[106] == "<end_of_turn>"
    assert pieces.tokens[262145] == "<image_soft_token>"
    assert pieces.types[255999] == vocabulary.CONTROL


def test_log_probabilities_of_llama_perplexity_are_read(tmp_path: Path) -> None:
    context, size = 8, 5
    header = b"_logits_" + np.array([context, size, 1], np.int32).tobytes()
    ids = np.arange(10, 10 + context, dtype=np.int32)
    row = [*np.array([0.5, -3.0], np.float32).view(np.uint16).tolist(), 0, 1, 2, 3, 4, 0]
    data = header + ids.tobytes() + np.array(row * 3, np.uint16).tobytes()
    path = tmp_path / "base.kld"
    path.write_bytes(data)
    found = read_log_probabilities(path)
    assert found.first == 4
    assert found.ids.tolist() == [2, *range(11, 18)]
    np.testing.assert_allclose(found.values, np.tile([-3.0, -2.5, -2.0, -1.5, -1.0], (3, 1)))
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="ends before"):
        read_log_probabilities(path)
    path.write_bytes(b"nothing here")
    with pytest.raises(ValueError, match="does not start"):
        read_log_probabilities(path)
