"""What only a trial can tell: which pre-tokenizer it is, and whether llama.cpp alone tokenizes like the checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest
import trained
from altered import copy
from ingle.convert import convert, gguf, tokenizer
from ingle.convert.errors import UnsupportedModel, VerificationFailed
from ingle.convert.progress import silent
from ingle.convert.vocabulary import DOCUMENT_KEY, LIBRARY_KEY, PRE_KEY, VERDICT_KEY, Vocabulary
from ingle.runtime.cli.convert import convert_and_prove
from ingle.runtime.settle import MODEL, settle
from ingle.runtime.store.checkpoint import Checkpoint
from ingle.runtime.tasks.encoder import Encoder
from ingle.runtime.verify import compare
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

# GPT-2's expression, with its alternatives in another order.
REORDERED = r"'s|'ll|'ve|'re|'d|'m|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def splitting(folder: Path, expression: str) -> Path:
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    return trained.byte_level(folder, [split], use_regex=False)


def written(vocabulary: Vocabulary, out: Path) -> Path:
    gguf.write(out, {**MODEL, **vocabulary.metadata}, [])
    return out


def test_an_unknown_description_of_a_known_behaviour_is_found_by_trying(tmp_path: Path) -> None:
    folder = splitting(tmp_path / "checkpoint", REORDERED)
    read = trained.vocabulary(folder)
    assert read.undecided
    assert len(read.pre_candidates) > 20
    tried = replace(read, pre_candidates=("qwen2", "gpt-2", "starcoder"))
    settled = settle(folder, tried)
    assert settled.metadata[PRE_KEY] == "gpt-2"
    assert settled.metadata[VERDICT_KEY] == "exact"
    assert LIBRARY_KEY not in settled.metadata
    found = [item for item in settled.items if item.name == "pre-tokenizer"]
    assert [(item.verdict, item.detail) for item in found] == [("ok", "gpt-2, found by trying 2")]
    assert compare(folder, written(settled, tmp_path / "v.gguf"), silent).strings >= 4_000


def test_what_none_cuts_like_is_refused_with_the_first_differences(tmp_path: Path) -> None:
    folder = splitting(tmp_path / "checkpoint", r"[aeiou]+|[^aeiou]+")
    tried = replace(trained.vocabulary(folder), pre_candidates=("gpt-2", "no-such-name"))
    with pytest.raises(VerificationFailed, match="no way to tokenize like this checkpoint") as caught:
        settle(folder, tried)
    assert caught.value.message.count("the tokenizers differ at string") == 5
    assert caught.value.message.count("\n  checkpoint: [") == 5


def test_what_none_cuts_like_is_not_converted_without_a_trial(tmp_path: Path) -> None:
    folder = copy("qwen2", tmp_path)

    def change(content: dict[str, Any]) -> None:
        content["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": REORDERED}

    trained.edit(folder, change)
    with pytest.raises(UnsupportedModel, match="only trying them all can tell"):
        convert(folder, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
    convert(folder, tmp_path / "out.gguf", settle=lambda found: found.with_pre("gpt-2"))
    assert gguf.read(tmp_path / "out.gguf").metadata[PRE_KEY] == "gpt-2"


@pytest.mark.parametrize("kind", ["t5", "xlm-r"])
def test_unigram_with_a_charsmap_is_exact_for_us_and_says_how_exact_for_others(kind: str, tmp_path: Path) -> None:
    folder = trained.unigram(tmp_path / "checkpoint", like=kind)
    settled = settle(folder, trained.vocabulary(folder))
    assert str(settled.metadata[VERDICT_KEY]).startswith("known: llama.cpp alone gives other tokens for ")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads(str(settled.metadata[DOCUMENT_KEY])) == content
    assert any(item.name == "tokenizer" and item.verdict == "warn" for item in settled.items)
    verdict = compare(folder, written(settled, tmp_path / "v.gguf"), silent)
    assert (verdict.strings, verdict.pairs) == (4_000, 400)


def test_an_added_token_that_is_a_single_word_is_left_to_its_tokenizer(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path / "checkpoint")
    number = trained.size(folder)
    entry = {"id": number, "content": "king", "single_word": True, "lstrip": False, "rstrip": False}

    def change(content: dict[str, Any]) -> None:
        content["added_tokens"].append({**entry, "normalized": False, "special": False})

    trained.edit(folder, change)
    settled = settle(folder, trained.vocabulary(folder))
    assert settled.embeds
    assert compare(folder, written(settled, tmp_path / "v.gguf"), silent).strings >= 4_000


def test_a_token_that_is_found_in_normalized_text_is_left_to_its_tokenizer(tmp_path: Path) -> None:
    """NFKC turns full-width letters into the token's own; GGUF cannot say that they are no token there."""
    folder = trained.byte_level(tmp_path / "checkpoint", normalizer=normalizers.NFKC())
    settled = settle(folder, trained.vocabulary(folder))
    assert settled.embeds
    assert compare(folder, written(settled, tmp_path / "v.gguf"), silent).strings >= 4_000


def test_an_encoder_is_converted_with_its_own_tokenizer(tmp_path: Path) -> None:
    folder = trained.wordpiece(tmp_path / "words")
    number = trained.size(folder)
    recipe = encoders.recipe("bert")
    recipe["config"]["vocab_size"] = recipe["tensors"]["embeddings.word_embeddings.weight"][0] = number
    checkpoint = encoders.write(tmp_path / "checkpoint", recipe)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).replace(checkpoint / name)
    proven = convert_and_prove(Checkpoint.of_folder(checkpoint), tmp_path / "bert.gguf", "auto", silent)
    assert (proven.proof["strings"], proven.proof["pairs"]) == (4_000, 400)
    assert str(gguf.read(tmp_path / "bert.gguf").metadata[VERDICT_KEY]).startswith("known: llama.cpp alone")
    assert any(item.name == "tokenizer" for item in proven.conversion.warnings)
    with Encoder(tmp_path / "bert.gguf", threads=1) as encoder:
        truth = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        assert encoder.tokenize("Größe, the KING") == truth.encode("Größe, the KING").ids


def test_older_files_of_roberta_give_the_pairs_of_its_class(tmp_path: Path) -> None:
    folder = trained.older(tmp_path / "checkpoint", "RobertaTokenizer")
    number = trained.size(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"king of": number, "<tool>": number + 1}), encoding="utf-8")
    settled = settle(folder, tokenizer.read(folder, {}, trained.size(folder), embed=True))
    assert settled.metadata[VERDICT_KEY] == "exact"
    assert compare(folder, written(settled, tmp_path / "v.gguf"), silent).pairs == 400


def test_a_vocabulary_that_is_simply_wrong_is_refused(tmp_path: Path) -> None:
    """A tokenizer.json in the file would hide it from us, but not from others."""
    folder = trained.byte_level(tmp_path / "checkpoint")
    read = trained.vocabulary(folder)
    tokens = read.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    shifted = [*tokens[:3], *tokens[4:], tokens[3]]
    with pytest.raises(VerificationFailed, match="the tokenizers differ at string"):
        settle(folder, replace(read, metadata={**read.metadata, "tokenizer.ggml.tokens": shifted}))


def test_a_wrong_sentencepiece_vocabulary_has_no_way_out(tmp_path: Path) -> None:
    folder = trained.sentencepiece_model(tmp_path / "checkpoint", "unigram")
    read = trained.vocabulary(folder)
    scores = read.metadata["tokenizer.ggml.scores"]
    assert isinstance(scores, np.ndarray)
    changed = scores.copy()
    changed[50:150] -= 5
    with pytest.raises(VerificationFailed, match="the tokenizers differ at string"):
        settle(folder, replace(read, metadata={**read.metadata, "tokenizer.ggml.scores": changed}))


def test_a_charsmap_that_llama_cpp_cannot_read_is_refused(tmp_path: Path) -> None:
    folder = trained.unigram(tmp_path / "checkpoint", like="t5")
    read = trained.vocabulary(folder)
    charsmap = np.frombuffer((64).to_bytes(4, "little") + b"\xff" * 64 + b"a", np.uint8)
    with pytest.raises(VerificationFailed, match="Index out of array bounds"):
        settle(folder, replace(read, metadata={**read.metadata, "tokenizer.ggml.precompiled_charsmap": charsmap}))
