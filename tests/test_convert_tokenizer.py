"""Tokenizers to GGUF vocabularies: each kind against its own library through llama.cpp, and every refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trained
from ingle.convert import gguf, tokenizer
from ingle.convert.errors import BadCheckpoint, UnsupportedModel, VerificationFailed
from ingle.convert.progress import silent
from ingle.convert.vocabulary import TokenType, Vocabulary
from ingle.runtime.corpus import WORDS
from ingle.runtime.llama.vocab import Vocab
from ingle.runtime.verify import compare
from tokenizers import Tokenizer, normalizers, pre_tokenizers

Maker = Callable[[Path], Path]

KINDS: dict[str, Maker] = {
    "gpt-2": trained.byte_level,
    "gpt-2 with bos": lambda folder: trained.byte_level(folder, bos=True),
    "gpt-2 with NFC": lambda folder: trained.byte_level(folder, normalizer=normalizers.NFC()),
    "gpt-2 with a space before": lambda folder: trained.byte_level(folder, prefix_space=True),
    "starcoder": lambda folder: trained.byte_level(folder, [pre_tokenizers.Digits(individual_digits=True)]),
    "sentencepiece bpe": trained.sentencepiece_bpe,
    "sentencepiece bpe, Metaspace first": lambda folder: trained.sentencepiece_bpe(folder, prefix="first"),
    "sentencepiece bpe, Metaspace always": lambda folder: trained.sentencepiece_bpe(folder, prefix="always"),
    "sentencepiece bpe, as Gemma's": lambda folder: trained.sentencepiece_bpe(folder, prefix=""),
    "unigram": trained.unigram,
    "tokenizer.model bpe": lambda folder: trained.sentencepiece_model(
        folder, "bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False
    ),
    "tokenizer.model unigram": lambda folder: trained.sentencepiece_model(folder, "unigram"),
    "sentencepiece.bpe.model of XLM-R": trained.fairseq_model,
    "wordpiece": trained.wordpiece,
    "wordpiece, cased": lambda folder: trained.wordpiece(folder, lowercase=False, handle_chinese_chars=False),
    "unigram with a charsmap, as T5's": lambda folder: trained.unigram(folder, like="t5"),
    "unigram with a charsmap, as XLM-R's": lambda folder: trained.unigram(folder, like="xlm-r"),
    "vocab.json of GPT-2": lambda folder: trained.older(folder, "GPT2Tokenizer"),
    "vocab.json of RoBERTa": lambda folder: trained.older(folder, "RobertaTokenizer"),
    "vocab.json of Qwen2": lambda folder: trained.older(folder, "Qwen2TokenizerFast"),
    "vocab.txt of BERT": lambda folder: trained.older(folder, "BertTokenizer"),
}
PAIRED = ("wordpiece", "unigram", "vocab.txt")


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_the_file_tokenizes_as_the_checkpoint_does(make: Maker, tmp_path: Path, request: Any) -> None:
    folder = make(tmp_path / "checkpoint")
    file = trained.vocabulary_gguf(folder, tmp_path / "v.gguf.partial")
    verdict = compare(folder, file, silent)
    assert verdict.strings >= 4_000
    assert bool(verdict.pairs) == request.node.callspec.id.startswith(PAIRED)


@pytest.mark.parametrize("like", ["t5", "xlm-r"])
def test_llama_cpp_alone_agrees_with_unigram_on_text_without_stray_marks(like: str, tmp_path: Path) -> None:
    """tokenizers rewrites whole grapheme clusters and so swallows a mark behind a rewritten character; sentencepiece
    and llama.cpp do not. So the file holds the tokenizer.json for us; for other programs it is nearly as good."""
    folder = trained.unigram(tmp_path / "checkpoint", like=like)
    truth = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with Vocab.open(trained.vocabulary_gguf(folder, tmp_path / "v.gguf")) as vocab:
        for text in (*WORDS, *trained.SENTENCES):
            ids = vocab.native_tokens(text, add_special=True, parse_special=True)
            assert ids == truth.encode(text).ids, text


def test_llama_cpp_alone_agrees_with_wordpiece_on_plain_words(tmp_path: Path) -> None:
    folder = trained.wordpiece(tmp_path / "checkpoint")
    truth = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with Vocab.open(trained.vocabulary_gguf(folder, tmp_path / "v.gguf")) as vocab:
        for text in WORDS[:20]:
            ids = vocab.native_tokens(text, add_special=True, parse_special=True)
            assert ids == truth.encode(text).ids, text


def add(folder: Path, *tokens: tuple[str, bool], **flags: bool) -> None:
    """Append added tokens (text, special) as tokenizers itself stores them."""

    def change(content: dict[str, Any]) -> None:
        first = max(content["model"]["vocab"].values()) + 1
        common = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, **flags}
        content["added_tokens"] += [
            {"id": first + offset, "content": text, "special": special, **common}
            for offset, (text, special) in enumerate(tokens)
        ]

    trained.edit(folder, change)


def test_three_tokens_more_change_nothing_but_the_vocabulary(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path / "checkpoint")
    before = trained.vocabulary(folder)
    add(folder, ("<|tool|>", True), ("<tool_call>", False), ("   ", False))
    after = trained.vocabulary(folder)
    assert after.metadata["tokenizer.ggml.pre"] == before.metadata["tokenizer.ggml.pre"] == "gpt-2"
    assert texts(after)[-3:] == ["<|tool|>", "<tool_call>", "   "]
    assert types(after)[-3:] == [TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.USER_DEFINED]
    assert compare(folder, trained.vocabulary_gguf(folder, tmp_path / "v.gguf"), silent).strings >= 4_000


def test_gemma_keeps_runs_of_spaces_and_lines_as_added_tokens(tmp_path: Path) -> None:
    folder = trained.sentencepiece_bpe(tmp_path / "checkpoint", prefix="")
    runs = [character * length for character in "▁\n" for length in (2, 3, 4)]

    def change(content: dict[str, Any]) -> None:
        vocab = content["model"]["vocab"]
        for text in ("\n", *runs):
            vocab[text] = max(vocab.values()) + 1
            content["model"]["merges"] += [[text[:cut], text[cut:]] for cut in range(1, len(text))]
        common = {"special": False, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        content["added_tokens"] += [{"id": vocab[text], "content": text, **common} for text in runs]
        content["pre_tokenizer"] = {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False
        }  # fmt: skip

    trained.edit(folder, change)
    assert types(trained.vocabulary(folder))[-6:] == [TokenType.NORMAL] * 3 + [TokenType.USER_DEFINED] * 3
    assert compare(folder, trained.vocabulary_gguf(folder, tmp_path / "v.gguf"), silent).strings >= 4_000


@pytest.mark.parametrize("flag", ["lstrip", "rstrip"])
@pytest.mark.parametrize("make", [trained.byte_level, trained.sentencepiece_bpe], ids=["gpt2", "llama"])
def test_added_tokens_that_swallow_spaces(make: Maker, flag: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "checkpoint")
    add(folder, ("<mask>", True), **{flag: True})
    file = trained.vocabulary_gguf(folder, tmp_path / "v.gguf")
    assert gguf.read(file).metadata[f"ingle.tokenizer.{flag}"] == ["<mask>"]
    assert compare(folder, file, silent).strings >= 4_000


def test_a_pre_tokenizer_of_another_kind_is_caught(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path / "checkpoint")
    file = trained.vocabulary_gguf(folder, tmp_path / "v.gguf", **{"tokenizer.ggml.pre": "starcoder"})
    with pytest.raises(VerificationFailed, match=r"(?s)differ at string \d+.*checkpoint: \[.*llama.cpp:  \[") as caught:
        compare(folder, file, silent)
    assert "'1 12 123" in caught.value.message


def test_a_swapped_pair_of_tokens_is_caught(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path / "checkpoint")
    tokens = texts(trained.vocabulary(folder))
    left, right = tokens.index("x"), tokens.index("w")
    tokens[left], tokens[right] = tokens[right], tokens[left]
    file = trained.vocabulary_gguf(folder, tmp_path / "v.gguf", **{"tokenizer.ggml.tokens": tokens})
    with pytest.raises(VerificationFailed, match="the tokenizers differ at string"):
        compare(folder, file, silent)


def test_a_missing_bos_is_caught(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path / "checkpoint", bos=True)
    file = trained.vocabulary_gguf(folder, tmp_path / "v.gguf", **{"tokenizer.ggml.add_bos_token": False})
    with pytest.raises(VerificationFailed, match="string 0, with added special tokens: ''"):
        compare(folder, file, silent)


def texts(made: Vocabulary) -> list[str]:
    found = made.metadata["tokenizer.ggml.tokens"]
    assert isinstance(found, list)
    return list(found)


def types(made: Vocabulary) -> list[int]:
    found = made.metadata["tokenizer.ggml.token_type"]
    assert isinstance(found, np.ndarray)
    return [int(kind) for kind in found]


def failures(made: Vocabulary) -> str:
    return "\n".join(f"{item.name}: {item.detail}" for item in made.items if item.verdict == "fail")


def test_rows_without_a_token_are_padded_with_names_of_their_own(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path)
    number = trained.size(folder)
    add(folder, (f"[PAD{number + 1}]", False))
    made = trained.vocabulary(folder, number + 4)
    assert texts(made)[-4:] == [
        f"[PAD{number + 1}]", f"[[PAD{number + 1}]]", f"[PAD{number + 2}]", f"[PAD{number + 3}]"
    ]  # fmt: skip
    assert types(made)[-3:] == [TokenType.UNUSED] * 3
    assert len(set(texts(made))) == number + 4


def test_added_tokens_without_an_embedding_are_left_out_and_named(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path)
    number = trained.size(folder)
    add(folder, ("<image>", True))
    made = trained.vocabulary(folder, number)
    assert "<image>" not in texts(made)
    assert any(item.verdict == "warn" and "'<image>'" in item.detail for item in made.items)
    assert not failures(made)


def test_pieces_without_an_embedding_are_refused(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path)
    assert "5 pieces have no row among" in failures(trained.vocabulary(folder, trained.size(folder) - 5))


def test_two_tokens_of_one_text_are_refused(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path)
    add(folder, ("the", False))
    trained.edit(folder, lambda content: content["model"]["vocab"].setdefault("the", 3))
    number = trained.size(folder)
    assert "occur twice, 'the'" in failures(trained.vocabulary(folder, number + 2))


def test_a_nul_in_a_token_is_refused(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path)
    add(folder, ("a\0b", False))
    assert "NUL" in failures(trained.vocabulary(folder, trained.size(folder) + 1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, "byte fallback"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer: steps that are not supported: Lowercase"),
        ({"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}}, "rewrites spaces"),
        ({"post_processor": {"type": "Odd"}}, "added ids: not supported: post_processor of type 'Odd'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_llama_cpp_cannot_do_is_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path)
    trained.edit(folder, lambda content: content.update(change))
    assert says in failures(trained.vocabulary(folder, 500))


@pytest.mark.parametrize("option", ["continuing_subword_prefix", "end_of_word_suffix"])
def test_unknown_options_of_bpe_are_refused(option: str, tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path)
    trained.edit(folder, lambda content: content["model"].update({option: "@@"}))
    assert f"BPE with {option} '@@'" in failures(trained.vocabulary(folder, 500))


def test_word_level_is_refused_by_name(tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path)
    trained.edit(folder, lambda content: content["model"].update(type="WordLevel"))
    assert failures(trained.vocabulary(folder, 10)) == "tokenizer: WordLevel tokenizers are not supported"


def test_older_files_of_an_unknown_class_are_refused(tmp_path: Path) -> None:
    folder = trained.older(tmp_path, "EvilTokenizer")
    with pytest.raises(UnsupportedModel, match="Evil"):
        trained.vocabulary(folder, 500)


def test_a_sentencepiece_bpe_model_of_another_class_is_refused(tmp_path: Path) -> None:
    folder = trained.fairseq_model(tmp_path)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CamembertTokenizer"}', encoding="utf-8")
    assert "sentencepiece.bpe.model files" in failures(trained.vocabulary(folder, 500))


def test_sentencepiece_bpe_without_all_bytes_is_refused(tmp_path: Path) -> None:
    folder = trained.sentencepiece_bpe(tmp_path)
    trained.edit(folder, lambda content: content["model"]["vocab"].pop("<0x41>"))
    assert "needs all 256 byte tokens; 1 are missing" in failures(trained.vocabulary(folder, 700))


def test_a_sentencepiece_bpe_model_that_rewrites_text_is_refused(tmp_path: Path) -> None:
    folder = trained.sentencepiece_model(tmp_path, "bpe", byte_fallback=True)
    assert "does not rewrite characters or spaces" in failures(trained.vocabulary(folder))


def test_scores_follow_the_merges(tmp_path: Path) -> None:
    folder = trained.sentencepiece_bpe(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    left, right = content["model"]["merges"][7]
    made = trained.vocabulary(folder)
    scores = made.metadata["tokenizer.ggml.scores"]
    assert isinstance(scores, np.ndarray)
    assert scores[content["model"]["vocab"][left + right]] == -7


def test_a_tokenizer_model_beside_it_gives_the_scores_if_its_pieces_are_the_same(tmp_path: Path) -> None:
    options = {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    folder = trained.sentencepiece_model(tmp_path, "bpe", **options)
    alone = trained.vocabulary(folder)
    trained.sentencepiece_bpe(folder)
    other = trained.vocabulary(folder)
    vocab = {text: index for index, text in enumerate(texts(alone))}
    trained.edit(folder, lambda content: content["model"].update(vocab=vocab, merges=[]))
    same = trained.vocabulary(folder)
    assert np.array_equal(same.metadata["tokenizer.ggml.scores"], alone.metadata["tokenizer.ggml.scores"])  # type: ignore[arg-type]
    assert not np.array_equal(other.metadata["tokenizer.ggml.scores"], alone.metadata["tokenizer.ggml.scores"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("model"),
        lambda content: content["model"].update(merges=[["a"]]),
        lambda content: content["model"].update(merges=[["q", "zzz"]]),
        lambda content: content["model"].update(vocab=[1, 2]),
        lambda content: content.update(added_tokens=[{"content": "x"}]),
    ],
    ids=["no model", "half a merge", "merge to no piece", "vocab a list", "added without id"],
)
def test_a_malformed_tokenizer_json_is_a_bad_checkpoint(change: Any, tmp_path: Path) -> None:
    folder = trained.byte_level(tmp_path)
    trained.edit(folder, change)
    with pytest.raises(BadCheckpoint):
        trained.vocabulary(folder, 500)


def test_a_folder_without_tokenizer_is_a_bad_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="has no tokenizer"):
        tokenizer.read(tmp_path, {}, 10)


def test_a_broken_tokenizer_model_is_a_bad_checkpoint(tmp_path: Path) -> None:
    folder = trained.sentencepiece_model(tmp_path, "unigram")
    file = folder / "tokenizer.model"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(BadCheckpoint, match="is not a sentencepiece model"):
        trained.vocabulary(folder, 10)


def test_reading_needs_no_tokenizer_library(bard: Path) -> None:
    made = trained.vocabulary(bard, 4_096, {"eos_token_id": 2})
    truth = Tokenizer.from_file(str(bard / "tokenizer.json"))
    assert texts(made) == [truth.id_to_token(index) for index in range(4_096)]
    assert made.metadata["tokenizer.ggml.pre"] == "gpt-2"
    assert not failures(made)
