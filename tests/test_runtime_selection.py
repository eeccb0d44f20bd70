"""Which of a repository's GGUF files is meant."""

from __future__ import annotations

import pytest
from ingle.runtime.store.repository import RemoteFile, Repository
from ingle.runtime.store.selection import choose, variants

COMMIT = "c" * 40


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("tiny-Q4_K_M.gguf", "Q4_K_M"),
        ("tiny.q4_0.gguf", "Q4_0"),
        ("tiny-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("tiny-IQ3_XXS.gguf", "IQ3_XXS"),
        ("tiny_fp16.gguf", "F16"),
        ("BF16/tiny-00001-of-00001.gguf", "BF16"),
        ("Q8_0.gguf", "Q8_0"),
        ("tiny-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("tiny-TQ1_0.gguf", "TQ1_0"),
        ("tiny-1.5B-instruct.gguf", ""),
        ("ggml-model.gguf", ""),
    ],
)
def test_the_type_is_read_from_the_file_name(name: str, label: str) -> None:
    repository = Repository("org/x", COMMIT, {name: RemoteFile(name, 1, "a" * 64)})
    assert [variant.label for variant in variants(repository)] == [label]


@pytest.mark.parametrize("name", ["mmproj-x-f16.gguf", "x.imatrix.gguf", "x-lora-f16.gguf", "x.safetensors"])
def test_what_is_no_model_is_not_offered(name: str) -> None:
    repository = Repository("org/x", COMMIT, {name: RemoteFile(name, 1, "a" * 64)})
    assert variants(repository) == []


def test_a_label_is_meant_before_the_end_of_a_name() -> None:
    names = ["x-UD-Q4_K_M.gguf", "x-Q4_K_M.gguf"]
    found = variants(Repository("org/x", COMMIT, {name: RemoteFile(name, 1, "a" * 64) for name in names}))
    assert choose(found, "Q4_K_M", "org/x")[0].label == "Q4_K_M"
    assert choose(found, "UD-Q4_K_M", "org/x")[0].label == "UD-Q4_K_M"
