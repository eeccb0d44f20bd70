"""The proof as it is run: in a child, against good files, wrong files and files that kill llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trained
from ingle.convert import gguf
from ingle.convert.errors import BadCheckpoint, BadGGUF, VerificationFailed
from ingle.convert.progress import silent
from ingle.runtime import corpus
from ingle.runtime.verify import Verdict, compare, prove


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = trained.byte_level(tmp_path_factory.mktemp("checkpoint"))
    (folder / "chat_template.jinja").write_text(trained.CHATML, encoding="utf-8")
    return folder


def test_a_true_file_is_proven_whatever_its_name(checkpoint: Path, tmp_path: Path) -> None:
    file = trained.vocabulary_gguf(checkpoint, tmp_path / ".model.gguf.x.partial")
    steps: list[tuple[str, int, int]] = []
    verdict = prove(checkpoint, file, lambda stage, done, total: steps.append((stage, done, total)))
    assert verdict == Verdict(strings=4_000, renderings=4 * len(corpus.CONVERSATIONS), refusals=4)
    assert steps[-1] == ("verify", 4_000, 4_000)
    assert [done for _, done, _ in steps] == sorted({done for _, done, _ in steps})


def test_a_wrong_file_is_refused_with_both_id_lists(checkpoint: Path, tmp_path: Path) -> None:
    file = trained.vocabulary_gguf(checkpoint, tmp_path / "v.gguf", **{"tokenizer.ggml.pre": "llama-bpe"})
    with pytest.raises(VerificationFailed) as caught:
        prove(checkpoint, file)
    assert "the tokenizers differ at string" in caught.value.message
    assert "\n  checkpoint: [" in caught.value.message
    assert "\n  llama.cpp:  [" in caught.value.message


def test_a_file_that_llama_cpp_dies_of_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    tokens = trained.vocabulary(checkpoint).metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    twice = [*tokens[:-1], tokens[-2]]
    file = trained.vocabulary_gguf(checkpoint, tmp_path / "v.gguf", **{"tokenizer.ggml.tokens": twice})
    with pytest.raises(VerificationFailed, match=r"was ended by SIGABRT"):
        prove(checkpoint, file)


def test_a_file_that_llama_cpp_refuses_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    file = trained.vocabulary_gguf(checkpoint, tmp_path / "v.gguf", **{"tokenizer.ggml.pre": "no-such-name"})
    with pytest.raises(VerificationFailed, match="no-such-name"):
        prove(checkpoint, file)


def test_broken_inputs_keep_their_own_errors(checkpoint: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    with pytest.raises(BadGGUF):
        prove(checkpoint, broken)
    file = trained.vocabulary_gguf(checkpoint, tmp_path / "v.gguf")
    with pytest.raises(BadCheckpoint, match="has no tokenizer"):
        prove(tmp_path, file)


def test_a_changed_template_is_caught(checkpoint: Path, tmp_path: Path) -> None:
    changed = trained.CHATML.replace("+ '\n'", "+ ' '", 1)
    file = trained.vocabulary_gguf(checkpoint, tmp_path / "v.gguf", **{"tokenizer.chat_template": changed})
    with pytest.raises(
        VerificationFailed, match=r"(?s)template 'default' renders differently.*transformers: '.*ingle:"
    ):
        compare(checkpoint, file, silent)


def test_a_template_that_refuses_less_is_caught(checkpoint: Path, tmp_path: Path) -> None:
    tolerant = trained.CHATML.replace("message['content']", "message['content'] | string")
    file = trained.vocabulary_gguf(checkpoint, tmp_path / "v.gguf", **{"tokenizer.chat_template": tolerant})
    with pytest.raises(VerificationFailed, match=r"transformers: \(refused\)"):
        compare(checkpoint, file, silent)


def test_a_wrong_special_token_in_a_template_is_caught(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0]['content'] }}", encoding="utf-8")
    texts = json.dumps({"bos_token": "<|im_end|>"})
    file = trained.vocabulary_gguf(folder, tmp_path / "v.gguf", **{"ingle.special_tokens": texts})
    with pytest.raises(VerificationFailed, match="renders differently"):
        compare(folder, file, silent)


def test_named_templates_are_each_compared(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path / "checkpoint")
    (folder / "chat_template.jinja").write_text(trained.CHATML, encoding="utf-8")
    more = folder / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("{{ tools | tojson }}" + trained.CHATML, encoding="utf-8")
    file = trained.vocabulary_gguf(folder, tmp_path / "v.gguf")
    assert gguf.read(file).metadata["tokenizer.chat_templates"] == ["tool_use"]
    assert compare(folder, file, silent).renderings == 8 * len(corpus.CONVERSATIONS)


def test_a_checkpoint_with_a_tokenizer_model_alone_is_proven_with_its_template(tmp_path: Path) -> None:
    options = {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    folder = trained.sentencepiece_model(tmp_path / "checkpoint", "bpe", **options)
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    template = "{{ bos_token }}" + trained.CHATML + "{{ eos_token }}"
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    file = trained.vocabulary_gguf(folder, tmp_path / "v.gguf")
    assert compare(folder, file, silent).renderings == 4 * len(corpus.CONVERSATIONS)


def test_the_corpus_is_the_same_every_time_and_varied() -> None:
    pieces, specials = ["the", " king", "Ä"], ["<s>", "</s>"]
    texts = corpus.strings(pieces, specials)
    assert texts == corpus.strings(pieces, specials)
    assert len(texts) == 4_000
    assert {"<s>", "a<s>b", "<s></s>", "</s", "\n</s>\n x"} <= set(texts)
    assert len(set("".join(texts))) > 3_000
    assert not any(0xD800 <= ord(character) < 0xE000 for character in "".join(texts))


def test_every_token_type_is_written(checkpoint: Path) -> None:
    types = trained.vocabulary(checkpoint, trained.size(checkpoint) + 1).metadata["tokenizer.ggml.token_type"]
    assert isinstance(types, np.ndarray)
    assert sorted(set(types.tolist())) == [1, 3, 5]
