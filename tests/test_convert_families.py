"""Each family's checkpoint through the whole conversion, without llama.cpp: what is in the file, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altered import CHECKPOINTS, NAMES, copy, edit
from ingle.convert import check, convert, gguf
from ingle.convert.encode import to_f32

ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output")
MLP = ("ffn_gate", "ffn_up", "ffn_down")
PRE = ("attn_norm", "ffn_norm")
POST = ("post_attention_norm", "post_ffw_norm")
QK = ("attn_q_norm", "attn_k_norm")
LAYER: dict[str, tuple[str, ...]] = {
    "gpt2": (*PRE, "attn_qkv", "attn_output", "ffn_up", "ffn_down"),
    "gemma2": (*PRE, *POST, *ATTENTION, *MLP),
    "gemma3": (*PRE, *POST, *QK, *ATTENTION, *MLP),
    "gemma3_vision": (*PRE, *POST, *QK, *ATTENTION, *MLP),
    "qwen3": (*PRE, *QK, *ATTENTION, *MLP),
    "phi3": (*PRE, "attn_qkv", "attn_output", "ffn_up", "ffn_down"),
    "olmo2": (*POST, *QK, *ATTENTION, *MLP),
}
BIASES: dict[str, tuple[str, ...]] = {
    "gpt2": LAYER["gpt2"], "llama3": (*ATTENTION, *MLP), "qwen2": ("attn_q", "attn_k", "attn_v"),
}  # fmt: skip
# What llama.cpp cannot load a decoder without, as its loader asks for it.
REQUIRED = {
    "general.architecture", "context_length", "embedding_length", "block_count", "feed_forward_length",
    "attention.head_count", "tokenizer.ggml.model", "tokenizer.ggml.tokens",
}  # fmt: skip
EXTRA = {
    "gpt2": {"position_embd.weight", "output_norm.bias"},
    "llama": {"output.weight"},
    "llama3": {"rope_freqs.weight"},
    "mistral": {"output.weight"},
    "phi3": {"output.weight", "rope_factors_long.weight", "rope_factors_short.weight"},
    "olmo2": {"output.weight"},
}


def expected_names(name: str, num_layers: int) -> set[str]:
    layer, biases = LAYER.get(name, (*PRE, *ATTENTION, *MLP)), BIASES.get(name, ())
    inner = {f"blk.{i}.{part}.weight" for i in range(num_layers) for part in layer}
    inner |= {f"blk.{i}.{part}.bias" for i in range(num_layers) for part in biases}
    return inner | {"token_embd.weight", "output_norm.weight"} | EXTRA.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_the_file_has_exactly_the_tensors_of_the_family(name: str, tmp_path: Path) -> None:
    done = convert(CHECKPOINTS / name, tmp_path / "m.gguf", "f32")
    file = gguf.read(done.path)
    arch = str(file.metadata["general.architecture"])
    assert set(file.tensors) == expected_names(name, int(file.metadata[f"{arch}.block_count"]))
    assert {info.type.name for info in file.tensors.values()} == {"F32"}
    assert {key.removeprefix(f"{arch}.") for key in file.metadata} >= REQUIRED
    assert any(f"{arch}.attention.{eps}" in file.metadata for eps in ("layer_norm_rms_epsilon", "layer_norm_epsilon"))
    assert done.size_bytes == done.path.stat().st_size
    assert done.num_parameters == sum(math.prod(info.shape) for info in file.tensors.values())
    assert len(file.metadata["tokenizer.ggml.tokens"]) == file.tensors["token_embd.weight"].shape[0]


@pytest.mark.parametrize("name", NAMES)
def test_check_finds_nothing_wrong_and_reads_no_tensor(name: str) -> None:
    report = check(CHECKPOINTS / name)
    assert report.ok, report.failures
    assert {"architecture", "config", "rope", "tensors", "dtype", "size", "licence"} <= {i.name for i in report.items}


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "smollm2", "gemma"])
def test_every_dtype_stores_the_same_numbers(name: str, dtype: str, tmp_path: Path) -> None:
    convert(CHECKPOINTS / name, tmp_path / "exact.gguf", "f32")
    convert(CHECKPOINTS / name, tmp_path / "m.gguf", dtype)
    exact, file = gguf.read(tmp_path / "exact.gguf"), gguf.read(tmp_path / "m.gguf")
    assert list(exact.tensors) == list(file.tensors)
    for tensor, info in file.tensors.items():
        values = exact.tensor(tensor)
        vector = len(info.shape) < 2 or tensor.endswith("_norm.weight") or tensor.startswith("position")
        stored = "F32" if vector else "F16" if dtype == "q8_0" and info.shape[-1] % 32 else dtype.upper()
        assert info.type.name == stored, tensor
        largest = float(np.abs(values - decoded(file, tensor)).max())
        # Of Q8_0: half a step, and what the f16 of the scale (11 bits) is off for the largest of 127 steps.
        bound = {"F32": 0.0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": (0.5 + 127 / 2**11) / 127}[stored] * float(
            np.abs(values).max()
        )
        assert largest <= bound, tensor


def decoded(file: gguf.GGUF, name: str) -> np.ndarray:
    stored, kind = file.tensor(name), file.tensors[name].type.name
    if kind != "Q8_0":
        return to_f32(stored, kind)
    blocks = stored.reshape(-1, 34)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return (blocks[:, 2:].view(np.int8) * scale).reshape(file.tensors[name].shape)


@pytest.mark.parametrize(("name", "dtype"), [("llama", "F32"), ("mistral", "F16"), ("qwen3", "BF16")])
def test_auto_keeps_the_dtype_of_the_checkpoint(name: str, dtype: str, tmp_path: Path) -> None:
    assert convert(CHECKPOINTS / name, tmp_path / "m.gguf").dtype == dtype


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    for out in ("a.gguf", "b.gguf"):
        convert(CHECKPOINTS / "smollm2", tmp_path / out)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def metadata(folder: Path, tmp_path: Path) -> dict[str, Any]:
    return dict(gguf.read(convert(folder, tmp_path / "m.gguf").path).metadata)


def test_metadata_of_windows_caps_and_two_ropes(tmp_path: Path) -> None:
    keys = metadata(CHECKPOINTS / "gemma3", tmp_path)
    assert keys["gemma3.attention.sliding_window"] == 8
    assert (keys["gemma3.rope.freq_base"], keys["gemma3.rope.freq_base_swa"]) == (1e6, 1e4)
    assert (keys["gemma3.rope.scaling.type"], keys["gemma3.rope.scaling.factor"]) == ("linear", 8.0)
    keys = metadata(CHECKPOINTS / "gemma2", tmp_path)
    assert (keys["gemma2.attn_logit_softcapping"], keys["gemma2.final_logit_softcapping"]) == (50.0, 30.0)


def test_an_unusual_window_pattern_is_written_out(tmp_path: Path) -> None:
    kinds = ["full_attention", "sliding_attention"]
    keys = metadata(edit(copy("gemma2", tmp_path), layer_types=kinds), tmp_path)
    assert keys["gemma2.attention.sliding_window_pattern"].tolist() == [False, True]


def test_the_models_own_sampling_and_identity_are_carried(tmp_path: Path) -> None:
    folder = copy("llama", tmp_path)
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0  # free\nlanguage:\n- en\n- 'fr'\ntags: [tiny, \"test\"]\n"
        "model-index:\n- name: x\n---\n# Hi\n"
    )
    keys = metadata(folder.rename(tmp_path / "Tiny-phi3-1B-chat"), tmp_path)
    assert keys["general.name"] == "Tiny Phi 3 1B Chat"
    assert (keys["general.basename"], keys["general.finetune"]) == ("Tiny-phi3", "chat")
    assert (keys["general.license"], keys["general.languages"], keys["general.tags"]) == (
        "apache-2.0",
        ["en", "fr"],
        ["tiny", "test"],
    )
    assert keys["general.sampling.temp"] == np.float32(0.7)
    assert keys["general.sampling.top_k"] == np.int32(40)


def test_older_configs_mean_the_same(tmp_path: Path) -> None:
    folder = copy("llama3", tmp_path)
    rope = json.loads((folder / "config.json").read_text())["rope_parameters"]
    theta = rope.pop("rope_theta")
    new = gguf.read(convert(CHECKPOINTS / "llama3", tmp_path / "new.gguf").path)
    edit(
        folder, rope_parameters=..., rope_theta=theta, rope_scaling=rope, head_dim=..., rms_norm_eps=..., hidden_act=...
    )
    old = gguf.read(convert(folder, tmp_path / "old.gguf").path)
    assert old.tensor("rope_freqs.weight").tolist() == new.tensor("rope_freqs.weight").tolist()
    assert old.metadata["llama.rope.freq_base"] == new.metadata["llama.rope.freq_base"] == theta
    assert set(new.metadata) - set(old.metadata) == {"llama.attention.key_length", "llama.attention.value_length"}
