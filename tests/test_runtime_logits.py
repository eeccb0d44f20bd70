"""The second half of the proof: the numpy reference against transformers, and converted files against the reference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sweeping
from altered import CHECKPOINTS, copy, edit
from conformance import plans
from ingle.convert import convert, gguf
from ingle.convert.errors import UnsupportedModel, VerificationFailed
from ingle.convert.gguf import Value
from ingle.quantize import quantize
from ingle.runtime import logits, proof
from ingle.runtime.logits import BOUNDS, Logits, prove_logits
from ingle.runtime.reference import CLASSES, Reference
from shell import finished

GOLDEN = Path(__file__).parent / "golden"
KNOWN = (
    "gemma", "gemma2", "gemma3", "llama", "llama3", "mistral", "olmo2", "qwen3", "smollm2", "smollm3"
)  # fmt: skip


def golden(name: str, tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    if name in KNOWN:
        return CHECKPOINTS / name, json.loads((GOLDEN / f"{name}.json").read_text())["prompts"]
    entry = sweeping.load(name)
    return sweeping.write_checkpoint(tmp_path / name, entry), entry["prompts"]


@pytest.mark.parametrize("name", [*KNOWN, "qwen2"])
def test_the_reference_computes_what_transformers_does(name: str, tmp_path: Path) -> None:
    folder, prompts = golden(name, tmp_path)
    found = Reference(folder).logits([prompt["tokens"] for prompt in prompts])
    for ours, prompt in zip(found, prompts, strict=True):
        assert np.abs(ours - prompt["logits"]).max() <= 2e-6 * np.ptp(prompt["logits"])


def test_there_is_a_test_for_each_class_of_the_reference() -> None:
    configs = [json.loads((CHECKPOINTS / name / "config.json").read_text()) for name in KNOWN]
    assert {config["architectures"][0] for config in configs} | {sweeping.load("qwen2")["model"]} == set(CLASSES)


@pytest.mark.parametrize(("dtype", "most"), [("f32", 1e-5), ("f16", 5e-3), ("bf16", 2e-2), ("q8_0", 6e-2)])
def test_a_right_file_is_close_in_every_type(dtype: str, most: float, tmp_path: Path) -> None:
    path = convert(CHECKPOINTS / "llama3", tmp_path / "m.gguf", dtype).path
    found = logits.compare(CHECKPOINTS / "llama3", path, whatever_size=False)
    assert (found.prompts, found.not_compared) == (8, "")
    assert 0 < found.difference <= most <= BOUNDS[dtype.upper()]


def rewritten(tmp_path: Path, changes: Mapping[str, Value], swapped: str = "") -> Path:
    """A converted Llama 3 with other metadata, or a matrix whose rows are in another order."""
    file = gguf.read(convert(CHECKPOINTS / "llama3", tmp_path / "right.gguf", "f32").path)
    path = tmp_path / "wrong.gguf"
    gguf.write(path, {**file.metadata, **changes}, plans(file))
    if swapped:
        info = file.tensors[swapped]
        with path.open("r+b") as out:
            out.seek(gguf.read(path).tensors[swapped].offset)
            out.write(np.ascontiguousarray(file.tensor(swapped)[::-1]).tobytes())
        assert info.type.name == "F32"
    return path


WRONG: dict[str, tuple[dict[str, Value], str]] = {
    "theta": ({"llama.rope.freq_base": 1e3}, ""),
    "order of rows": ({}, "blk.0.attn_q.weight"),
    "epsilon": ({"llama.attention.layer_norm_rms_epsilon": 0.1}, ""),
    "bias": ({}, "blk.1.attn_k.bias"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_found_out(case: str, tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match="the logits of 8 prompts differ by"):
        logits.compare(CHECKPOINTS / "llama3", rewritten(tmp_path, *WRONG[case]), whatever_size=False)


def test_a_file_that_kills_llama_cpp_fails_the_proof(tmp_path: Path) -> None:
    tokens: Any = gguf.read(convert(CHECKPOINTS / "llama3", tmp_path / "m.gguf").path).metadata["tokenizer.ggml.tokens"]
    path = rewritten(tmp_path, {"tokenizer.ggml.tokens": ["twice", "twice", *tokens[2:]]})
    with pytest.raises(VerificationFailed, match="was ended by SIGABRT"):
        prove_logits(CHECKPOINTS / "llama3", path)


def test_what_is_not_compared_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = convert(CHECKPOINTS / "phi3", tmp_path / "phi3.gguf", "f32").path
    assert prove_logits(CHECKPOINTS / "phi3", path) == Logits(not_compared="there is no reference for Phi3ForCausalLM")
    path = convert(CHECKPOINTS / "llama", tmp_path / "llama.gguf", "f32").path
    monkeypatch.setattr(logits, "SMALL_PARAMETERS", 1000)
    assert "--prove" in logits.compare(CHECKPOINTS / "llama", path, whatever_size=False).not_compared
    assert logits.compare(CHECKPOINTS / "llama", path, whatever_size=True).prompts == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "rotary embedding"),
        ({"num_hidden_layers": ...}, "needs num_hidden_layers"),
        ({"rms_norm_eps": ...}, "needs rms_norm_eps"),
        ({"quantization_config": {"quant_method": "fp8"}}, "no quantized"),
        ({"architectures": ["Gemma3ForCausalLM"], "head_dim": ...}, "needs head_dim, query_pre_attn_scalar, final"),
        ({"architectures": ...}, "a checkpoint without a class"),
    ],
)
def test_the_reference_does_not_guess(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        Reference(edit(copy("llama", tmp_path), **changes))


def test_the_proof_is_in_the_file_and_in_what_is_made_of_it(tmp_path: Path) -> None:
    found = {"strings": 4000, "renderings": 0, "refusals": 0, "prompts": 8, "difference": 1.2e-6, "not_compared": ""}
    seen: list[proof.Proof | None] = []

    def prove(partial: Path) -> proof.Proof:
        seen.append(proof.of(gguf.read(partial).metadata))
        return found

    path = convert(CHECKPOINTS / "llama", tmp_path / "m.gguf", "f32", prove=prove).path
    plain = gguf.read(convert(CHECKPOINTS / "llama", tmp_path / "plain.gguf", "f32").path)
    proven, small = gguf.read(path), gguf.read(quantize(path, tmp_path / "small.gguf", "Q8_0").path)
    assert seen == [None]
    assert proof.of(proven.metadata) == proof.of(small.metadata) == found
    assert proof.of(plain.metadata) is None
    assert {key: str(value) for key, value in proven.metadata.items() if key != "ingle.proof"} == {
        key: str(value) for key, value in plain.metadata.items()
    }
    assert all(np.array_equal(proven.tensor(name), plain.tensor(name)) for name in plain.tensors)
    shown = finished("show", path)[1]
    assert "the tokens of 4,000 texts, the logits of 8 prompts (within 1e-06 of their spread) (says the file)" in shown


def test_a_proof_names_what_was_not_compared() -> None:
    assert proof.described({"strings": 10, "not_compared": "no time"}) == "the tokens of 10 texts, no logits: no time"
    assert proof.described({}) == "nothing"
    assert proof.of({"ingle.proof": "{"}) is None
