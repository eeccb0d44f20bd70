"""What llama.cpp demands of a file: that the table says the truth, and that a file which breaks it is not written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest
import sweeping
from conformance import plans
from ingle.convert import check, convert, gguf
from ingle.convert.contract import ALWAYS, VOCABULARY, breaches, required
from ingle.convert.errors import LoadFailed, UnsupportedModel
from ingle.convert.families import FAMILIES
from ingle.convert.gguf import Value
from ingle.convert.source import Source
from ingle.runtime.llama.model import NativeModel
from seeing import VISION

CHECKPOINTS = Path(__file__).parent / "checkpoints"
ARCHS = sorted({family.arch for family in FAMILIES})
# One entry of tests/sweep/, tests/encoders/ or tests/checkpoints/ for each architecture, where its own name is none.
ENTRIES = {
    "chatglm": "glm", "command-r": "cohere", "deepseek2": "deepseek_v3", "ernie4_5-moe": "ernie4_5_moe",
    "gemma-embedding": "gemma_embedding",
    "glm4moe": "glm4_moe", "gpt-oss": "gpt_oss", "gptneox": "gpt_neox", "granitemoe": "granite_moe",
    "hunyuan-dense": "hunyuan_dense", "lfm2moe": "lfm2_moe", "mistral3": "ministral3", "modern-bert": "modernbert",
    "nomic-bert": "nomic_bert", "phi2": "phi", "qwen2moe": "qwen2_moe", "qwen2vl": "qwen2_5_vl", "qwen35": "qwen3_5",
    "qwen35moe": "qwen3_5_moe", "qwen3moe": "qwen3_moe", "qwen3next": "qwen3_next", "starcoder": "gpt_bigcode",
    "t5encoder": "t5_encoder",
}  # fmt: skip
# Without it llama.cpp loads the file all the same, and computes with an epsilon of zero.
UNASKED = {("qwen2vl", "attention.layer_norm_rms_epsilon")}
Keys = dict[str, Any]


def checkpoint(arch: str, folder: Path) -> Path:
    name = ENTRIES.get(arch, arch)
    for kept in (CHECKPOINTS, VISION):
        if (kept / name).exists():
            return kept / name
    if name in sweeping.NAMES:
        return sweeping.write_checkpoint(folder / name, sweeping.load(name))
    return encoders.write(folder / name, encoders.recipe(name))


@pytest.mark.parametrize("arch", ARCHS)
def test_llama_cpp_loads_no_file_without_a_required_key(arch: str, tmp_path: Path) -> None:
    file = gguf.read(convert(checkpoint(arch, tmp_path), tmp_path / "whole.gguf", "f32").path)
    assert file.metadata["general.architecture"] == arch
    NativeModel(file.path).close()
    # What every architecture needs is taken out of one of them only.
    keys = [key for key in required(arch) if key not in ALWAYS or arch == "gpt2"]
    assert keys
    for key in keys:
        if (arch, key) in UNASKED:
            continue
        less = {name: value for name, value in file.metadata.items() if name != f"{arch}.{key}"}
        assert any(key in breach.detail for breach in breaches(less, plans(file)))
        gguf.write(tmp_path / "less.gguf", less, plans(file))
        with pytest.raises(LoadFailed, match=f"key not found in model: {arch}.{key}"):
            NativeModel(tmp_path / "less.gguf")


BREACHES: dict[str, tuple[str, Callable[[Keys], Value | None], str]] = {
    "vocabulary": (VOCABULARY[1], lambda keys: None, "does not load llama without tokenizer.ggml.tokens"),
    "twice": (VOCABULARY[1], lambda keys: [*keys[VOCABULARY[1]][:-1], "<s>"], "2 tokens have the text '<s>'"),
    "rows": (VOCABULARY[1], lambda keys: [*keys[VOCABULARY[1]], "one more"], "rows for"),
    "types": ("tokenizer.ggml.token_type", lambda keys: np.ones(3, np.int32), "has 3 entries for"),
    "layers": ("llama.block_count", lambda keys: 513, "513 layers"),
    "per layer": ("llama.attention.head_count_kv", lambda keys: np.ones(9, np.int32), "9 entries for 2 layers"),
    "experts": ("llama.expert_count", lambda keys: 4, "0 of 4 experts"),
    "head": ("llama.rope.dimension_count", lambda keys: 2, "2 of the"),
    "name": ("general.name", lambda keys: "Tiny Phi-3 Llama", "reads an instruction out of general.name"),
    "architecture": ("general.architecture", lambda keys: "rwkv7", "nobody has said"),
}


@pytest.mark.parametrize("case", BREACHES)
def test_what_the_loader_would_refuse_is_named(case: str) -> None:
    source = Source(CHECKPOINTS / "llama", "f32")
    key, change, words = BREACHES[case]
    keys = {**source.metadata, key: change(source.metadata)}
    keys = {name: value for name, value in keys.items() if value is not None}
    assert list(breaches(source.metadata, source.plans)) == []
    assert any(words in breach.detail for breach in breaches(keys, source.plans))


def test_a_breach_is_found_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("ingle.convert.contract", fromlist=["OWN"]).OWN, "llama", ("something.new",))
    assert not check(CHECKPOINTS / "llama").ok
    with pytest.raises(UnsupportedModel, match=r"without llama\.something\.new"):
        convert(CHECKPOINTS / "llama", tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []
