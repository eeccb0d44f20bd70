"""What a conversion refuses, says, leaves out and leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altered import CHECKPOINTS, NAMES, copy, edit, rewrite
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ingle.convert import check, convert, gguf
from ingle.convert.errors import (
    BadCheckpoint,
    IngleError,
    InputError,
    UnknownType,
    UnsupportedModel,
    VerificationFailed,
)
from ingle.convert.families import FAMILIES


def test_a_class_name_decides_and_a_model_type_only_without_one(tmp_path: Path) -> None:
    folder = edit(copy("llama", tmp_path), architectures=...)
    assert convert(folder, tmp_path / "m.gguf").architecture == "llama"
    edit(folder, architectures=["LlamaForQuestionAnswering"])
    with pytest.raises(UnsupportedModel, match="LlamaForQuestionAnswering"):
        convert(folder, tmp_path / "n.gguf")


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"quantization_config": {"quant_method": "gptq"}}, r"already quantized \(gptq\)"),
    ("llama", {"hidden_act": "relu"}, "relu"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
    ("llama", {"rope_parameters": {"rope_type": "longrope"}}, "longrope"),
    ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ("llama", {"rope_parameters": {"rope_type": "linear"}}, "factor must be"),
    ("qwen2", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "original_max_position_embeddings"),
    ("qwen2", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16}}, "beta_fast"),
    ("qwen2", {"rope_parameters": {"rope_type": "llama3", "factor": 4.0}}, "llama3"),
    ("qwen2", {"head_dim": 8}, "head_dim"),
    ("qwen3", {"attention_bias": True}, "attention_bias"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma", {"tie_word_embeddings": False}, "tie_word_embeddings|missing"),
    ("gemma2", {"attn_logit_softcapping": None}, "attn_logit_softcapping"),
    ("gemma2", {"query_pre_attn_scalar": 99}, "query_pre_attn_scalar"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("smollm3", {"no_rope_layers": [1, 1, 1, 1]}, "no_rope_layers"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights"),
    (
        "phi3",
        {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
        "long_factor",
    ),
    ("llama", {"intermediate_size": 95}, "has shape"),
    ("llama", {"num_hidden_layers": 3}, "missing"),
    ("llama", {"num_hidden_layers": 1}, "nothing maps"),
    ("llama", {"tie_word_embeddings": True}, "holds other values"),
    ("llama", {"hidden_size": None}, "no hidden_size"),
]


@pytest.mark.parametrize(("name", "change", "reason"), REFUSED)
def test_what_llama_cpp_cannot_compute_is_refused_before_writing(
    name: str, change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    folder = edit(copy(name, tmp_path), **change)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(InputError, match=reason):
        convert(folder, out / "m.gguf")
    assert list(out.iterdir()) == []
    if "other values" not in reason:
        assert not check(folder).ok


def test_a_sliding_window_that_is_not_applied_is_a_warning(tmp_path: Path) -> None:
    done = convert(edit(copy("mistral", tmp_path), sliding_window=64), tmp_path / "m.gguf")
    assert any("64 tokens" in item.detail for item in done.warnings if item.name == "attention")


def test_an_unknown_tensor_fails_by_name(tmp_path: Path) -> None:
    folder = rewrite(copy("llama", tmp_path), lambda t: t.update({"model.extra": ("F32", np.ones(3, np.float32))}))
    with pytest.raises(BadCheckpoint, match=r"nothing maps.*model\.extra"):
        convert(folder, tmp_path / "m.gguf")


def test_a_missing_tensor_fails_by_name(tmp_path: Path) -> None:
    folder = rewrite(copy("qwen2", tmp_path), lambda t: t.pop("model.layers.1.self_attn.k_proj.bias") and None)
    with pytest.raises(BadCheckpoint, match=r"missing.*layers\.1\.self_attn\.k_proj\.bias"):
        convert(folder, tmp_path / "m.gguf")


def test_integer_weights_are_refused_by_name(tmp_path: Path) -> None:
    def quantize(tensors: dict[str, tuple[str, Any]]) -> None:
        name = "model.layers.0.mlp.up_proj.weight"
        tensors[name] = ("I8", tensors[name][1].astype(np.int8))

    with pytest.raises(UnsupportedModel, match=r"up_proj\.weight is stored as I8"):
        convert(rewrite(copy("llama", tmp_path), quantize), tmp_path / "m.gguf")


def test_tensors_left_out_are_named_with_the_rule(tmp_path: Path) -> None:
    def add(tensors: dict[str, tuple[str, Any]]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = ("F32", np.ones(4, np.float32))
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]

    done = convert(rewrite(copy("qwen3", tmp_path), add), tmp_path / "m.gguf")
    assert sorted(done.dropped) == ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"]
    assert all(
        "vision" in reason for reason in convert(CHECKPOINTS / "gemma3_vision", tmp_path / "v.gguf").dropped.values()
    )


def test_older_saves_without_the_root_prefix_are_read(tmp_path: Path) -> None:
    def strip(tensors: dict[str, tuple[str, Any]]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = ("F32", np.ones((1, 1, 4, 4), np.float32))

    done = convert(rewrite(copy("gpt2", tmp_path), strip), tmp_path / "m.gguf")
    assert list(done.dropped) == ["h.0.attn.bias"]
    original = gguf.read(convert(CHECKPOINTS / "gpt2", tmp_path / "o.gguf").path)
    assert all(np.array_equal(gguf.read(done.path).tensor(name), original.tensor(name)) for name in original.tensors)


def test_olmo2_with_a_tied_head_gets_the_head_llama_cpp_asks_for(tmp_path: Path) -> None:
    folder = rewrite(copy("olmo2", tmp_path), lambda t: t.pop("lm_head.weight") and None)
    file = gguf.read(convert(edit(folder, tie_word_embeddings=True), tmp_path / "m.gguf").path)
    assert np.array_equal(file.tensor("output.weight"), file.tensor("token_embd.weight"))


def too_large(tmp_path: Path) -> Path:
    """A Llama with values beyond the range of f16 in two tensors, and one that was infinite already."""

    def enlarge(tensors: dict[str, tuple[str, Any]]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][1][0, :3] = [1e6, -1e6, np.inf]
        tensors["model.layers.1.mlp.up_proj.weight"][1][0, 0] = 7e4

    return rewrite(copy("llama", tmp_path), enlarge)


def test_overflow_of_f16_is_counted_and_refused(tmp_path: Path) -> None:
    folder = too_large(tmp_path)
    with pytest.raises(UnsupportedModel, match=r"^3 values, 2 of them in blk\.0\.ffn_up\.weight") as caught:
        convert(folder, tmp_path / "m.gguf", "f16")
    assert "bf16" in caught.value.hint
    assert not list(tmp_path.glob("*.gguf*"))
    assert convert(folder, tmp_path / "m.gguf", "bf16").clipped == {}


def test_overflow_of_f16_is_clipped_when_that_is_asked_for(tmp_path: Path) -> None:
    done = convert(too_large(tmp_path), tmp_path / "m.gguf", "f16", clip=True)
    assert done.clipped == {"blk.0.ffn_up.weight": 2, "blk.1.ffn_up.weight": 1}
    file = gguf.read(done.path)
    assert file.tensor("blk.0.ffn_up.weight")[0, :3].tolist() == [65504, -65504, np.inf]
    assert file.tensor("blk.1.ffn_up.weight")[0, 0] == 65504


def test_proof_comes_before_the_name_and_failure_leaves_nothing(tmp_path: Path) -> None:
    out, seen = tmp_path / "out" / "m.gguf", []

    def prove(path: Path) -> None:
        seen.append(gguf.read(path).metadata["general.architecture"])
        assert not out.exists()
        raise VerificationFailed("not equal")

    with pytest.raises(VerificationFailed):
        convert(CHECKPOINTS / "llama", out, prove=prove)
    assert seen == ["llama"]
    assert list(out.parent.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        convert(CHECKPOINTS / "llama", out, prove=lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    assert list(out.parent.iterdir()) == []


def test_the_checkpoint_is_only_read(tmp_path: Path) -> None:
    folder = copy("smollm2", tmp_path)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    convert(folder, folder / "m.gguf")
    (folder / "m.gguf").unlink()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before
    for file in ("config.json", "model-00001-of-00004.safetensors"):
        with pytest.raises(InputError, match="a file of the checkpoint"):
            convert(folder, folder / file)
    with pytest.raises(InputError, match="is a folder"):
        convert(folder, folder)


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownType, match="q4_k"):
        convert(CHECKPOINTS / "llama", tmp_path / "m.gguf", "q4_k")


def test_progress_reaches_its_total(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    done = convert(CHECKPOINTS / "llama", tmp_path / "m.gguf", progress=lambda *step: steps.append(step))
    assert steps[-1][1] <= steps[-1][2] == done.size_bytes
    assert [step[1] for step in steps] == sorted(step[1] for step in steps)


def test_code_that_a_config_names_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = edit(copy("llama", tmp_path), auto_map={"AutoConfig": "evil.Config"})
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(folder))
    convert(folder, tmp_path / "m.gguf")


def test_check_reports_and_never_raises(tmp_path: Path) -> None:
    for breakage in ({"architectures": 5}, {"architectures": [None]}, {"hidden_size": []}, {"rope_parameters": 5}):
        folder = edit(copy("llama", tmp_path / str(len(str(breakage)))), **breakage)
        assert not check(folder).ok
    for missing in ("config.json", "model.safetensors", "tokenizer.json"):
        folder = copy("llama", tmp_path / missing)
        (folder / missing).unlink()
        report = check(folder)
        assert not report.ok
        assert len({item.detail for item in report.failures}) == len(report.failures)
    assert [item.verdict for item in check(tmp_path / "nowhere").items].count("fail") == 1


CONFIG_KEYS = sorted({key for name in NAMES for key in json.loads((CHECKPOINTS / name / "config.json").read_text())})


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    changes=st.dictionaries(
        st.sampled_from([*CONFIG_KEYS, "no_rope_layers", "quantization_config", "sliding_window_pattern"]),
        st.sampled_from([None, True, 0, -1, 3, 1e9, "x", [], [1], ["a"], {}, {"a": 1}, {"rope_type": []}, [[]]]),
        min_size=1,
        max_size=4,
    ),
)
@example(name="llama", changes={"num_attention_heads": 3, "num_key_value_heads": None})
def test_check_never_raises_whatever_the_config(
    name: str, changes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz", numbered=True) / name
    folder.mkdir()
    for path in (CHECKPOINTS / name).iterdir():
        (folder / path.name).symlink_to(path)
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    assert check(folder).items


def test_no_two_families_claim_the_same_class() -> None:
    classes = [name for family in FAMILIES for name in family.classes]
    kinds = [name for family in FAMILIES for name in family.model_types]
    assert len(set(classes)) == len(classes)
    assert len(set(kinds)) == len(kinds)


def test_the_example_checkpoint_can_be_converted() -> None:
    assert check(Path(__file__).parent.parent / "examples" / "bard").ok


def test_errors_are_ours(tmp_path: Path) -> None:
    with pytest.raises(IngleError):
        convert(tmp_path / "missing", tmp_path / "m.gguf")
