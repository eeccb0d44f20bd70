"""The vision part of a checkpoint becomes a file of its own, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altered import edit, rewrite
from ingle.convert import check, convert, gguf, safetensors
from ingle.convert.encode import to_f32
from ingle.convert.errors import BadCheckpoint, UnsupportedModel
from ingle.convert.tensor import Tensor
from seeing import FAMILIES, VISION, copy

KINDS = {"smolvlm": "idefics3", "gemma3": "gemma3", "qwen2_5_vl": "qwen2.5vl_merger"}
# What llama.cpp's loader asks every vision part for.
REQUIRED = {
    "clip.has_vision_encoder", "clip.projector_type", "clip.vision.image_size", "clip.vision.patch_size",
    "clip.vision.embedding_length", "clip.vision.feed_forward_length", "clip.vision.block_count",
    "clip.vision.attention.head_count", "clip.vision.attention.layer_norm_epsilon", "clip.vision.projection_dim",
    "clip.vision.image_mean", "clip.vision.image_std",
}  # fmt: skip
BIASED = ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down")
TOWER = {f"{part}.{kind}" for part in (*BIASED, "ln1", "ln2") for kind in ("weight", "bias")}
SIGLIP = {"v.patch_embd.weight", "v.patch_embd.bias", "v.position_embd.weight", "v.post_ln.weight", "v.post_ln.bias"}
TENSORS = {
    "smolvlm": (TOWER, SIGLIP | {"mm.model.fc.weight"}),
    "gemma3": (TOWER, SIGLIP | {"mm.soft_emb_norm.weight", "mm.input_projection.weight"}),
    "qwen2_5_vl": (
        TOWER - {"ln1.bias", "ln2.bias"} | {"ffn_gate.weight", "ffn_gate.bias"},
        {"v.patch_embd.weight", "v.patch_embd.weight.1", "v.post_ln.weight"}
        | {f"mm.{place}.{kind}" for place in (0, 2) for kind in ("weight", "bias")},
    ),
}


def projector(name: str, tmp_path: Path, dtype: str = "f32") -> gguf.GGUF:
    convert(VISION / name, tmp_path / "m.gguf", dtype)
    return gguf.read(tmp_path / "m-mmproj.gguf")


def values(tensor: Tensor) -> np.ndarray:
    return to_f32(tensor.values, tensor.dtype)


def test_there_is_a_name_for_each_family() -> None:
    assert set(KINDS) == set(FAMILIES) == set(TENSORS)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_file_has_what_the_loader_asks_for_and_no_more(name: str, tmp_path: Path) -> None:
    file = projector(name, tmp_path)
    each, once = TENSORS[name]
    layers = int(file.metadata["clip.vision.block_count"])
    assert set(file.tensors) == once | {f"v.blk.{layer}.{part}" for layer in range(layers) for part in each}
    assert set(file.metadata) >= REQUIRED
    assert file.metadata["clip.projector_type"] == KINDS[name]
    assert (file.metadata["general.architecture"], file.metadata["general.type"]) == ("clip", "mmproj")


def test_the_language_model_knows_nothing_of_it(tmp_path: Path) -> None:
    done = convert(VISION / "smolvlm", tmp_path / "m.gguf", "f32")
    file = gguf.read(done.path)
    assert file.metadata["general.architecture"] == "llama"
    assert not any(name.startswith(("v.", "mm.")) for name in file.tensors)
    assert done.projector is not None
    assert (done.projector.path, done.projector.num_tensors) == (tmp_path / "m-mmproj.gguf", 38)
    assert set(done.dropped.values()) == {"the vision part, which never is in this file"}


def test_what_is_fused_or_over_time_is_taken_apart(tmp_path: Path) -> None:
    file, source = projector("qwen2_5_vl", tmp_path), safetensors.read(VISION / "qwen2_5_vl" / "model.safetensors")
    for kind in ("weight", "bias"):
        fused = values(source[f"visual.blocks.1.attn.qkv.{kind}"])
        parts = [file.tensor(f"v.blk.1.attn_{part}.{kind}") for part in "qkv"]
        np.testing.assert_array_equal(np.concatenate(parts), fused)
    patches = values(source["visual.patch_embed.proj.weight"])
    np.testing.assert_array_equal(file.tensor("v.patch_embd.weight"), patches[:, :, 0])
    np.testing.assert_array_equal(file.tensor("v.patch_embd.weight.1"), patches[:, :, 1])


def test_gemmas_norm_gets_its_one_and_its_projection_stays_f16(tmp_path: Path) -> None:
    file, source = projector("gemma3", tmp_path), safetensors.read(VISION / "gemma3" / "model.safetensors")
    norm = next(tensor for name, tensor in source.items() if name.endswith("mm_soft_emb_norm.weight"))
    np.testing.assert_array_equal(file.tensor("mm.soft_emb_norm.weight"), values(norm) + 1)
    assert file.tensors["mm.input_projection.weight"].type.name == "F16"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_projector_is_not_quantized_and_its_positions_keep_their_width(name: str, tmp_path: Path) -> None:
    kinds = {tensor: at.type.name for tensor, at in projector(name, tmp_path, "q8_0").tensors.items()}
    assert "Q8_0" not in kinds.values()
    assert {kinds[tensor] for tensor in kinds if "embd" in tensor} == {"F32"}
    assert kinds["v.blk.0.ffn_up.weight"] == "BF16"


def test_names_of_transformers_4_are_known_too(tmp_path: Path) -> None:
    folder = copy("gemma3", tmp_path)

    def older(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[name.replace("vision_tower.", "vision_tower.vision_model.")] = tensors.pop(name)

    rewrite(folder, older)
    convert(folder, tmp_path / "old.gguf", "f32")
    assert (tmp_path / "old-mmproj.gguf").read_bytes() == projector_bytes("gemma3", tmp_path)


def projector_bytes(name: str, tmp_path: Path) -> bytes:
    convert(VISION / name, tmp_path / "new.gguf", "f32")
    return (tmp_path / "new-mmproj.gguf").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("model.vision_model.post_layernorm.bias"), r"missing.*post_layernorm\.bias"),
        (lambda tensors: tensors.update(extra(tensors)), r"nothing maps.*vision_model\.rotary\.weight"),
    ],
)
def test_a_tensor_too_few_or_too_many_is_named_and_nothing_is_written(
    change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    folder = rewrite(copy("smolvlm", tmp_path), change)
    with pytest.raises(BadCheckpoint, match=message):
        convert(folder, tmp_path / "m.gguf", "f32")
    assert not list(tmp_path.glob("*.gguf"))


def extra(tensors: dict[str, Any]) -> dict[str, Any]:
    return {"model.vision_model.rotary.weight": tensors["model.vision_model.post_layernorm.bias"]}


def test_without_a_word_on_pictures_there_is_no_file(tmp_path: Path) -> None:
    folder = copy("smolvlm", tmp_path)
    (folder / "processor_config.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"preprocessor_config\.json nor processor_config\.json"):
        convert(folder, tmp_path / "m.gguf")


def test_the_processor_of_transformers_4_is_read_too(tmp_path: Path) -> None:
    folder = copy("smolvlm", tmp_path)
    nested = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(nested | {"image_mean": [0.1, 0.2, 0.3]}))
    convert(folder, tmp_path / "m.gguf")
    mean = gguf.read(tmp_path / "m-mmproj.gguf").metadata["clip.vision.image_mean"]
    np.testing.assert_array_equal(mean, np.array([0.1, 0.2, 0.3], np.float32))


def vision(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        edit(folder, vision_config={**config["vision_config"], **changes})

    return change


def processor(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = next(folder / name for name in ("processor_config.json", "preprocessor_config.json")
                    if (folder / name).exists())  # fmt: skip
        found = json.loads(path.read_text())
        found.get("image_processor", found).update(changes)
        path.write_text(json.dumps(found))

    return change


REFUSED: list[tuple[str, Callable[[Path], None], str]] = [
    ("smolvlm", vision(hidden_act="relu"), "relu"),
    ("smolvlm", vision(num_channels=4), "num_channels"),
    ("smolvlm", processor(do_image_splitting=False), "not cut into tiles"),
    ("smolvlm", processor(size={"longest_edge": 32}), "not cut into tiles"),
    ("smolvlm", processor(max_image_size={"longest_edge": 16}), "tiles of"),
    ("gemma3", processor(size={"height": 28, "width": 56}), "takes 56 by 56"),
    ("gemma3", processor(do_pan_and_scan=True), "pan_and_scan"),
    ("gemma3", lambda folder: edit(folder, mm_tokens_per_image=5) and None, "cannot be averaged"),
    ("qwen2_5_vl", vision(window_size=224), "window_size"),
    ("qwen2_5_vl", vision(fullatt_block_indexes=[1, 2]), "every n-th layer"),
    ("qwen2_5_vl", vision(spatial_merge_size=4), "spatial_merge_size"),
    ("qwen2_5_vl", processor(merge_size=4), "merge_size"),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED)
def test_what_llama_cpp_computes_differently_is_refused(
    name: str, change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = copy(name, tmp_path)
    change(folder)
    with pytest.raises(UnsupportedModel, match=message):
        convert(folder, tmp_path / "m.gguf")


def test_sizes_of_pictures_that_are_none_are_refused(tmp_path: Path) -> None:
    folder = copy("smolvlm", tmp_path)
    processor(size={"longest_edge": -1})(folder)
    with pytest.raises(BadCheckpoint, match="longest_edge"):
        convert(folder, tmp_path / "m.gguf")


@pytest.mark.parametrize("name", FAMILIES)
def test_check_says_what_the_vision_part_will_be(name: str) -> None:
    report = check(VISION / name)
    assert report.ok
    assert "in a file of their own" in next(item.detail for item in report.items if item.name == "vision")


def test_vision_that_cannot_be_converted_is_a_warning(tmp_path: Path) -> None:
    folder = copy("smolvlm", tmp_path)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit(folder, architectures=["LlamaForCausalLM"], **text)
    items = check(folder).items
    assert [item.verdict for item in items if item.name == "vision"] == ["warn"]


def test_the_template_beside_the_processor_is_the_models(tmp_path: Path) -> None:
    folder = copy("smolvlm", tmp_path)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    done = convert(folder, tmp_path / "m.gguf")
    assert gguf.read(done.path).metadata["tokenizer.chat_template"] == template
