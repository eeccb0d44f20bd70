"""Checkpoints in 8-bit floats: each byte means what torch says, and a weight is element times factor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altered import copy, edit, rewrite
from ingle.convert import check, convert, fp8, gguf, safetensors
from ingle.convert.encode import to_f32
from ingle.convert.errors import BadCheckpoint, UnsupportedModel

GOLDEN = Path(__file__).parent / "data" / "torch" / "float8.safetensors"
Quantize = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_each_byte_is_the_number_that_torch_reads(dtype: str) -> None:
    assert np.array_equal(fp8.table(dtype), safetensors.read(GOLDEN)[dtype].values, equal_nan=True)


def codes(values: np.ndarray) -> np.ndarray:
    """The nearest E4M3 byte."""
    order = np.argsort(fp8.table("F8_E4M3"))[:-2].astype(np.uint8)  # without the two NaN, which sort last
    known = fp8.table("F8_E4M3")[order]
    return order[np.searchsorted((known[1:] + known[:-1]) / 2, values)]


def by_block(rows: int, columns: int) -> Quantize:
    def quantize(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = values.shape
        factors = np.empty((-(-height // rows), -(-width // columns)), np.float32)
        quantized = np.empty(values.shape, np.uint8)
        for i, j in np.ndindex(factors.shape):
            place = np.s_[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            factors[i, j] = np.abs(values[place]).max() / 448
            quantized[place] = codes(values[place] / factors[i, j])
        return quantized, factors

    return quantize


def once(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    quantized, factors = by_block(*values.shape)(values)
    return quantized, factors.reshape(())


def by_row(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return by_block(1, values.shape[1])(values)


def by_row_flat(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    quantized, factors = by_row(values)
    return quantized, factors.ravel()


def expanded(quantized: np.ndarray, factors: np.ndarray, block: tuple[int, int] | None) -> np.ndarray:
    """The weight, worked out in another way than the converter's."""
    if factors.ndim == 1:
        factors = factors[:, None]
    if block is not None:
        factors = np.kron(factors, np.ones(block, np.float32))[: quantized.shape[0], : quantized.shape[1]]
    return to_f32(quantized, "F8_E4M3") * factors


def fp8_llama(
    tmp_path: Path, quantize: Quantize, suffix: str, block: tuple[int, int] | None, settings: Any
) -> tuple[Path, dict[str, np.ndarray]]:
    """The tiny Llama with some matrices in fp8, and what these matrices now are."""
    expected: dict[str, np.ndarray] = {}

    def change(tensors: dict[str, tuple[str, Any]]) -> None:
        for name in [name for name, (_, values) in tensors.items() if values.ndim == 2]:
            dtype, values = tensors[name]
            quantized, factors = quantize(to_f32(values, dtype))
            tensors[name] = ("F8_E4M3", quantized)
            tensors[name + suffix] = ("F32", factors)
            expected[name] = expanded(quantized, factors, block)
        tensors["model.layers.0.self_attn.q_proj.input_scale"] = ("F32", np.ones((), np.float32))

    folder = rewrite(copy("llama", tmp_path), change)
    return edit(folder, quantization_config=settings), expected


COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {"group_0": {"weights": {"type": "float", "num_bits": 8, "strategy": "channel"}}},
}
KINDS: dict[str, tuple[Quantize, str, tuple[int, int] | None, dict[str, Any]]] = {
    "blocks": (by_block(24, 40), "_scale_inv", (24, 40), {"quant_method": "fp8", "weight_block_size": [24, 40]}),
    "one block": (by_block(128, 128), "_scale_inv", (128, 128), {"quant_method": "fp8"}),
    "one factor": (once, "_scale", None, {"quant_method": "modelopt", "quant_algo": "FP8"}),
    "rows": (by_row, "_scale", None, COMPRESSED),
    "rows, flat": (by_row_flat, "_scale", None, {"quant_method": "fbgemm_fp8"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_fp8_weights_are_element_times_factor(kind: str, tmp_path: Path) -> None:
    folder, expected = fp8_llama(tmp_path, *KINDS[kind])
    plain = rewrite(copy("llama", tmp_path / "plain"), lambda t: t.update({n: ("F32", v) for n, v in expected.items()}))
    done = convert(folder, tmp_path / "m.gguf", "f32")
    assert set(done.dropped.values()) == {"a scale of activations, which are not quantized here"}
    ours, theirs = gguf.read(done.path), gguf.read(convert(plain, tmp_path / "p.gguf", "f32").path)
    assert expected
    assert all(np.array_equal(ours.tensor(name), theirs.tensor(name)) for name in theirs.tensors)


def test_fp8_becomes_bf16_when_nothing_is_asked_for(tmp_path: Path) -> None:
    folder, _ = fp8_llama(tmp_path, *KINDS["blocks"])
    assert convert(folder, tmp_path / "m.gguf").dtype == "BF16"


def test_large_weights_are_dequantised_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = fp8_llama(tmp_path, *KINDS["blocks"])
    whole = convert(folder, tmp_path / "m.gguf", "bf16").path.read_bytes()
    monkeypatch.setattr("ingle.convert.transforms.CHUNK_BYTES", 1000)
    assert convert(folder, tmp_path / "n.gguf", "bf16").path.read_bytes() == whole


def test_8_bit_floats_without_factors_are_plain_numbers(tmp_path: Path) -> None:
    def change(tensors: dict[str, tuple[str, Any]]) -> None:
        name = "model.layers.0.mlp.up_proj.weight"
        tensors[name] = ("F8_E5M2", np.resize(np.arange(100, dtype=np.uint8), tensors[name][1].shape))

    file = gguf.read(convert(rewrite(copy("llama", tmp_path), change), tmp_path / "m.gguf", "f32").path)
    up = file.tensor("blk.0.ffn_up.weight")
    assert np.array_equal(up.ravel()[:100], fp8.table("F8_E5M2")[:100])


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"quant_method": "fp8", "weight_block_size": [24, 64]}, r"nor one per block of \[24, 64\]"),
        ({"quant_method": "fp8", "weight_block_size": [24]}, r"impossible block size \[24\]"),
        ({"quant_method": "fp8", "weight_block_size": [0, 24]}, "impossible block size"),
    ],
)
def test_factors_that_do_not_fit_are_refused(settings: dict[str, Any], rule: str, tmp_path: Path) -> None:
    folder, _ = fp8_llama(tmp_path, by_block(24, 40), "_scale_inv", (24, 40), settings)
    with pytest.raises(BadCheckpoint, match=rule):
        convert(folder, tmp_path / "m.gguf")


def test_missing_factors_are_named(tmp_path: Path) -> None:
    folder, _ = fp8_llama(tmp_path, *KINDS["blocks"])
    rewrite(folder, lambda t: t.pop("model.layers.0.self_attn.q_proj.weight_scale_inv") and None)
    with pytest.raises(BadCheckpoint, match=r"layers\.0\.self_attn\.q_proj\.weight is stored as F8_E4M3, but"):
        convert(folder, tmp_path / "m.gguf")


INT8 = {"config_groups": {"group_0": {"weights": {"type": "int", "num_bits": 8}}}}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"quant_method": "gptq", "bits": 4}, r"\(gptq, 4 bits\)", "model card"),
    ({"quant_method": "awq", "bits": 4, "group_size": 128}, r"\(awq, 4 bits\)", "model card"),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, r"\(bitsandbytes\)", "dequantize"),
    ({"load_in_4bit": True}, r"\(bitsandbytes\)", "dequantize"),
    ({"quant_method": "compressed-tensors", **INT8}, r"\(compressed-tensors, 8 bits\)", "model card"),
    ({"quant_method": "compressed-tensors"}, r"\(compressed-tensors\)", "model card"),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, r"\(modelopt\)", "model card"),
    ({"quant_method": "hqq"}, r"\(hqq\)", "dequantize"),
    ({"quant_method": "bitnet"}, r"\(bitnet\)", "BitNet"),
    ({"quant_method": ["fp8"]}, "already quantized", "model card"),
    ({"something": 1}, r"\(unknown\)", "model card"),
]


@pytest.mark.parametrize(("settings", "rule", "remedy"), REFUSED)
def test_other_quantizations_are_refused_with_what_to_do(
    settings: dict[str, Any], rule: str, remedy: str, tmp_path: Path
) -> None:
    folder = edit(copy("llama", tmp_path), quantization_config=settings)
    with pytest.raises(UnsupportedModel, match=rule) as caught:
        convert(folder, tmp_path / "m.gguf")
    assert remedy in caught.value.hint
    assert not check(folder).ok
