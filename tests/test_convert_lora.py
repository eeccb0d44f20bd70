"""PEFT adapters to GGUF: what is read, refused, folded in, proven and written."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import adapting
import altered
import numpy as np
import pytest
from adapting import ADAPTERS, CHECKPOINTS, QUERY, pair
from hypothesis import given
from hypothesis import strategies as st
from ingle.convert import adapter as adapters
from ingle.convert import convert, gguf, lora, merge, peft, transforms
from ingle.convert.adapter import AdapterSource, check_adapter, convert_adapter
from ingle.convert.errors import (
    BadCheckpoint,
    InputError,
    UnknownType,
    UnsupportedModel,
    VerificationFailed,
)
from ingle.convert.transforms import Rows, constant, product

BASE = CHECKPOINTS / "llama"  # 2 layers of 32, 4 heads (2 kv) of 8, inner size 96, 384 tokens, its own head


def product_of(path: Path, target: str) -> np.ndarray:
    file = gguf.read(path)
    return np.asarray(file.tensor(f"{target}.lora_b") @ file.tensor(f"{target}.lora_a"))


# ---- pairs through transforms ----------------------------------------------------------------------------------


def whole(rows: Rows) -> np.ndarray:
    values = np.concatenate(list(rows.chunks()))
    return values.reshape(rows.shape)


MOVES = {
    "as it is": lambda rows: rows,
    "rows": lambda rows: transforms.rope_rows(rows, 2),
    "columns": lambda rows: transforms.columns(rows, np.arange(rows.shape[1])[::-1].copy()),
    "transpose": transforms.transpose,
    "a part": lambda rows: transforms.regroup(rows, (1, 3), rows.shape[0] // 4, 1),
    "the end": lambda rows: transforms.rows_from(rows, 3),
    "the beginning": lambda rows: transforms.first_rows(rows, 4),
    "scaled": lambda rows: transforms.scaled(rows, 0.5),
    "stacked": lambda rows: transforms.stack([rows, rows]),
    "one shape for another": lambda rows: transforms.reshape(rows, rows.shape),
    "one row": lambda rows: transforms.squeeze(transforms.first_rows(rows, 1)),
}


@given(
    moves=st.lists(st.sampled_from(sorted(MOVES.keys() - {"stacked", "one row"})), max_size=3),
    last=st.sampled_from(["as it is", "stacked", "one row"]),
    height=st.sampled_from([8, 16]),
    width=st.sampled_from([8, 12]),
    rank=st.integers(1, 3),
    chunk=st.integers(1, 300),
)
def test_what_moves_a_product_moves_its_factors(
    moves: list[str], last: str, height: int, width: int, rank: int, chunk: int
) -> None:
    a, b = pair(height, width, rank)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "CHUNK_BYTES", chunk)
        rows = product(constant(b), constant(a))
        assert np.allclose(whole(rows), b @ a, atol=1e-5)
        for name in (*moves, last):
            try:
                rows = MOVES[name](rows)
            except transforms.Misfit:
                return  # not every move suits what the ones before it left
        assert rows.factors is not None
        dense = whole(rows)
        again = whole(rows.factors.left) @ whole(rows.factors.right)
    assert np.allclose(again.reshape(dense.shape), dense, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        transforms.add_one,
        transforms.negative_exp,
        lambda rows: transforms.reshape(rows, (4, 2, 6)),
        lambda rows: transforms.gather(rows, np.arange(8), (2, 4, 6)),
    ],
)
def test_what_changes_values_or_mixes_rows_leaves_no_factors(change: Any) -> None:
    a, b = pair(8, 6)
    assert change(product(constant(b), constant(a))).factors is None


# ---- on a base -------------------------------------------------------------------------------------------------


def test_the_scale_is_folded_in_and_alpha_says_so(tmp_path: Path) -> None:
    (a, b), out = pair(32, 32), tmp_path / "out.gguf"
    module = "model.layers.1.self_attn.o_proj"
    folder = adapting.write(tmp_path / "adapter", {module: (a, b)}, lora_alpha=6, use_rslora=True)
    done = convert_adapter(folder, BASE, out)
    assert np.allclose(product_of(out, "blk.1.attn_output.weight"), 6 / 2**0.5 * b @ a, atol=1e-5)
    metadata = gguf.read(out).metadata
    assert metadata["adapter.lora.alpha"] == 0.0
    assert (metadata["general.type"], metadata["adapter.type"]) == ("adapter", "lora")
    assert (metadata["general.architecture"], metadata["general.base_model.0.name"]) == ("llama", "Llama")
    assert (done.num_tensors, done.num_parameters, done.ranks) == (2, 128, (2,))


def test_query_rows_are_reordered_as_the_family_does(tmp_path: Path) -> None:
    a, b = pair(32, 32)
    convert_adapter(adapting.simple(tmp_path / "adapter", lora_alpha=2), BASE, tmp_path / "out.gguf")
    file = gguf.read(tmp_path / "out.gguf")
    order = np.arange(32).reshape(4, 2, 4).swapaxes(1, 2).ravel()
    assert np.array_equal(file.tensor("blk.0.attn_q.weight.lora_b"), b[order])
    assert np.array_equal(file.tensor("blk.0.attn_q.weight.lora_a"), a)


@pytest.mark.parametrize(
    ("base", "pairs", "error", "names"),
    [
        ("llama", {"model.layers.7.self_attn.q_proj": (32, 32)}, BadCheckpoint, "model.layers.7.self_attn.q_proj"),
        ("llama", {"model.layers.0.self_attn.c_attn": (32, 32)}, BadCheckpoint, "not in Llama"),
        ("llama", {QUERY: (64, 32)}, BadCheckpoint, "does not fit blk.0.attn_q.weight"),
        ("llama", {QUERY: (32, 48)}, BadCheckpoint, "does not fit blk.0.attn_q.weight"),
        ("llama", {"model.layers.0.self_attn.k_proj": (30, 32)}, BadCheckpoint, "does not fit blk.0.attn_k.weight"),
        ("llama", {QUERY: (32, 32), f"language_model.{QUERY}": (32, 32)}, BadCheckpoint, "one tensor"),
        ("gemma", {"model.layers.0.input_layernorm": (1, 48)}, UnsupportedModel, "input_layernorm"),
        ("qwen2", {"lm_head": (384, 64)}, UnsupportedModel, "the head of Qwen2 is its embedding"),
        ("qwen2", {"model.embed_tokens": (64, 384)}, UnsupportedModel, "which is the head of Qwen2, too"),
        ("gpt2", {"transformer.wpe_embed": (64, 64)}, BadCheckpoint, "transformer.wpe_embed"),
    ],
)
def test_an_adapter_that_does_not_fit_its_base_is_refused_before_a_byte_is_written(
    base: str, pairs: dict[str, tuple[int, int]], error: type[Exception], names: str, tmp_path: Path
) -> None:
    folder = adapting.write(tmp_path / "adapter", {name: pair(*shape) for name, shape in pairs.items()})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=re.escape(names)):
        convert_adapter(folder, CHECKPOINTS / base, tmp_path / "out.gguf")
    assert sorted(tmp_path.iterdir()) == before
    report = check_adapter(folder, CHECKPOINTS / base)
    assert not report.ok
    assert names in report["base"].detail


def test_what_llama_cpp_would_ignore_is_refused(tmp_path: Path) -> None:
    assert not lora.is_adapted("deepseek2", "blk.3.attn_kv_a_mqa.weight")
    assert not lora.is_adapted("gpt2", "position_embd.weight")
    assert lora.is_adapted("deepseek2", "blk.3.ffn_down_exps.weight")
    folder = adapting.write(tmp_path, {"transformer.wpe": pair(64, 64)})
    with pytest.raises(UnsupportedModel, match=r"would ignore an adapter for position_embd\.weight"):
        convert_adapter(folder, CHECKPOINTS / "gpt2", tmp_path / "out.gguf")


def test_an_encoder_is_no_base(tmp_path: Path) -> None:
    bare = altered.edit(altered.copy("smollm2", tmp_path), architectures=["LlamaModel"])
    folder = adapting.write(tmp_path / "adapter", {QUERY: pair(64, 64)})
    assert check_adapter(folder, CHECKPOINTS / "smollm2").ok
    with pytest.raises(UnsupportedModel, match="no decoder with a language head"):
        convert_adapter(folder, bare, tmp_path / "out.gguf")


def test_a_base_it_was_not_trained_on_is_a_warning(tmp_path: Path) -> None:
    folder = adapting.simple(tmp_path / "adapter", base_model_name_or_path="org/Other-Llama-1B")
    (warning,) = convert_adapter(folder, BASE, tmp_path / "out.gguf").warnings
    assert "trained on org/Other-Llama-1B, and is converted for Llama" in warning.detail
    metadata = gguf.read(tmp_path / "out.gguf").metadata
    assert metadata["general.base_model.0.repo_url"] == "https://huggingface.co/org/Other-Llama-1B"
    adapting.simple(folder, base_model_name_or_path="x/LLaMA")
    assert not convert_adapter(folder, BASE, tmp_path / "out.gguf").warnings


def test_a_copied_embedding_must_be_the_bases_own(tmp_path: Path) -> None:
    folder = shutil.copytree(ADAPTERS / "llama", tmp_path / "adapter")
    other = altered.rewrite(altered.copy("llama", tmp_path), _nudge)
    with pytest.raises(UnsupportedModel, match=r"brings a .* of its own"):
        convert_adapter(folder, other, tmp_path / "out.gguf")
    convert(BASE, tmp_path / "base.gguf", "f32")
    with pytest.raises(UnsupportedModel, match="cannot be compared with"):
        convert_adapter(folder, tmp_path / "base.gguf", tmp_path / "out.gguf")


def _nudge(tensors: dict[str, tuple[str, Any]]) -> None:
    kind, values = tensors["model.embed_tokens.weight"]
    values[3, 3] += 1
    tensors["model.embed_tokens.weight"] = (kind, values)


# ---- a base that is a GGUF file --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama3", "mistral", "qwen3", "gpt2", "gemma3"])
def test_a_gguf_base_gives_the_same_bytes_as_its_checkpoint(name: str, tmp_path: Path) -> None:
    base, file = CHECKPOINTS / name, tmp_path / f"{name}.gguf"
    convert(base, file, "q8_0")
    shapes = AdapterSource(ADAPTERS / "llama", base, "auto").readings[0].targets
    target = next(shape for name, shape in shapes.items() if name.endswith(("0.attn_q.weight", "0.attn_qkv.weight")))
    module = "transformer.h.0.attn.c_attn" if name == "gpt2" else QUERY
    folder = adapting.write(tmp_path / "adapter", {module: pair(*target)})
    files = [tmp_path / "one.gguf", tmp_path / "two.gguf"]
    for place, out in zip((base, file), files, strict=True):
        convert_adapter(folder, place, out)
    one, two = map(gguf.read, files)
    assert one.tensors.keys() == two.tensors.keys()
    assert all(np.array_equal(one.tensor(tensor), two.tensor(tensor)) for tensor in one.tensors)


def test_a_file_that_is_no_base_is_refused(tmp_path: Path) -> None:
    folder, out = adapting.simple(tmp_path / "adapter"), tmp_path / "out.gguf"
    convert_adapter(folder, BASE, tmp_path / "adapter.gguf")
    with pytest.raises(UnsupportedModel, match="is of type adapter, not a model"):
        convert_adapter(folder, tmp_path / "adapter.gguf", out)
    convert(BASE, tmp_path / "base.gguf", "f32")
    file = gguf.read(tmp_path / "base.gguf")
    plans = [
        gguf.TensorPlan(name, info.shape, info.type, lambda name=name: [file.tensor(name)])  # type: ignore[misc]
        for name, info in file.tensors.items()
    ]
    gguf.write(tmp_path / "part.gguf", {**file.metadata, "split.count": np.uint16(3)}, plans)
    with pytest.raises(UnsupportedModel, match="one part of a split model"):
        convert_adapter(folder, tmp_path / "part.gguf", out)
    gguf.write(tmp_path / "odd.gguf", {**file.metadata, "llama.attention.head_count_kv": 4}, plans)
    with pytest.raises(UnsupportedModel, match="does not say enough"):
        convert_adapter(folder, tmp_path / "odd.gguf", out)


# ---- writing and proof -----------------------------------------------------------------------------------------


def test_the_verdict_is_in_the_file(tmp_path: Path) -> None:
    seen: list[Path] = []

    def prove(file: Path, base: Path) -> None:
        assert gguf.read(file).tensors
        assert base == BASE
        seen.append(file)

    done = convert_adapter(ADAPTERS / "llama", BASE, tmp_path / "out.gguf", prove=prove)
    assert [file.parent for file in seen] == [tmp_path]
    said = adapters.described(gguf.read(tmp_path / "out.gguf").metadata)
    assert said == adapters.proven(done.merge, loaded=True)
    assert said.startswith("equal to PEFT's merge in 16 weights (")
    assert said.endswith("), loaded by llama.cpp")
    assert done.merge.largest_error <= merge.TOLERANCE["F32"]
    assert adapters.described({}) == ""


@pytest.mark.parametrize("half", ["lora_a", "lora_b"])
def test_a_file_that_adds_something_else_is_found_out(
    half: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_halves = lora.Addition.halves.fget  # type: ignore[attr-defined]

    def wrong(self: lora.Addition) -> dict[str, Rows]:
        found = dict(true_halves(self))
        name = f"blk.1.ffn_down.weight.{half}"
        if name in found:
            values = whole(found[name]).copy()
            values[0, 0] += 0.01
            found[name] = constant(values)
        return found

    monkeypatch.setattr(lora.Addition, "halves", property(wrong))
    with pytest.raises(VerificationFailed, match=r"add to blk\.1\.ffn_down\.weight differs"):
        convert_adapter(ADAPTERS / "llama", BASE, tmp_path / "out.gguf")
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    a, b = pair(32, 32)
    b[5, 1] = np.nan
    folder = adapting.write(tmp_path / "adapter", {QUERY: (a, b)})
    with pytest.raises(BadCheckpoint, match=r"values for blk\.0\.attn_q\.weight that are not finite"):
        convert_adapter(folder, BASE, tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_values_too_large_for_f16_are_counted(tmp_path: Path) -> None:
    a, b = pair(32, 32)
    b[:3, 0] = 60_000
    folder = adapting.write(tmp_path / "adapter", {QUERY: (a, b)})
    with pytest.raises(UnsupportedModel, match=r"3 values of blk\.0\.attn_q\.weight\.lora_b are too large for f16"):
        convert_adapter(folder, BASE, tmp_path / "out.gguf", "f16")
    assert convert_adapter(folder, BASE, tmp_path / "out.gguf", "bf16").dtype == "BF16"


def test_other_element_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownType, match="q8_0"):
        convert_adapter(ADAPTERS / "gemma", CHECKPOINTS / "gemma", tmp_path / "out.gguf", "q8_0")


def test_inputs_are_not_overwritten(tmp_path: Path) -> None:
    folder = adapting.simple(tmp_path / "adapter")
    convert(BASE, tmp_path / "base.gguf", "f32")
    for out in (folder, folder / "adapter_config.json", tmp_path / "base.gguf"):
        with pytest.raises(InputError):
            convert_adapter(folder, tmp_path / "base.gguf", out)
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 2


def test_a_broken_file_is_refused_by_name(tmp_path: Path) -> None:
    folder = adapting.simple(tmp_path / "adapter")
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(BadCheckpoint, match=r"adapter_config\.json"):
        convert_adapter(folder, BASE, tmp_path / "out.gguf")
    (folder / "adapter_config.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"has no adapter_config\.json"):
        peft.read(folder)
