"""Tokenizers trained on the spot, small and of every kind, as checkpoint folders; and vocabulary-only GGUF files."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ingle.convert import gguf, spm, tokenizer
from ingle.convert.gguf import Value
from ingle.convert.vocabulary import Vocabulary
from ingle.runtime.corpus import WORDS
from ingle.runtime.settle import MODEL
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LINES = [
    *(line for text in WORDS for line in text.replace("\0", "").splitlines() if line.strip()),
    *(
        f"the {noun} of {other} was not in the {other} when {noun} came"
        for noun in ("king", "sea")
        for other in ("day", "night")
    ),
] * 2
# Nothing repeats here: among pieces like "~" and "~~" a Unigram model has ties, which float rounding decides.
SENTENCES = [line for line in LINES if not re.search(r"(.)\1{2}|(..)\2", line)]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_level(
    folder: Path,
    steps: Sequence[Any] = (),
    *,
    use_regex: bool = True,
    prefix_space: bool = False,
    normalizer: Any = None,
    ignore_merges: bool = False,
    bos: bool = False,
) -> Path:
    """GPT-2's kind. ``steps``: pre-tokenizers before the ByteLevel one."""
    made = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=use_regex)
    made.pre_tokenizer = pre_tokenizers.Sequence([*steps, last]) if steps else last
    made.decoder = decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(
        made,
        trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    if bos:
        made.post_processor = processors.TemplateProcessing("<|endoftext|> $A", None, [("<|endoftext|>", 0)])
    return _save(made, folder, {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"})


def sentencepiece_bpe(folder: Path, *, prefix: str = "before") -> Path:
    """Llama's kind. ``prefix``: ``before`` (a Prepend normalizer), ``first`` or ``always`` (Metaspace), or none."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    special = ["<unk>", "<s>", "</s>", *bytes_]
    _train(made, trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False))
    escape = normalizers.Replace(" ", "▁")
    if prefix == "before":
        made.normalizer, made.pre_tokenizer = normalizers.Sequence([normalizers.Prepend("▁"), escape]), None
    elif prefix:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    else:
        made.normalizer, made.pre_tokenizer = escape, None
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    _save(made, folder, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    edit(folder, lambda content: content.update(added_tokens=[t for t in content["added_tokens"] if t["id"] < 3]))
    return folder


BRACKETS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def wordpiece(folder: Path, *, lowercase: bool = True, **options: Any) -> Path:
    """BERT's kind. ``options``: of the BertNormalizer."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase, **options)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    _train(made, trainers.WordPieceTrainer(vocab_size=600, special_tokens=BRACKETS, show_progress=False))
    made.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad", "unk", "cls", "sep", "mask")
    return _save(made, folder, {f"{name}_token": text for name, text in zip(names, BRACKETS, strict=True)})


def older(folder: Path, kind: str) -> Path:
    """The files that a class of transformers had before there was a tokenizer.json."""
    made = wordpiece(folder) if kind == "BertTokenizer" else byte_level(folder)
    content = json.loads((made / "tokenizer.json").read_text(encoding="utf-8"))
    vocab, merges = content["model"]["vocab"], content["model"].get("merges", ())
    if kind == "RobertaTokenizer":
        vocab |= {text: len(vocab) + index for index, text in enumerate(("<s>", "<pad>", "</s>", "<unk>", "<mask>"))}
    if kind == "BertTokenizer":
        text = "".join(f"{piece}\n" for piece in sorted(vocab, key=vocab.__getitem__))
        (folder / "vocab.txt").write_text(text, encoding="utf-8")
    else:
        (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}), encoding="utf-8")
    return folder


def unigram(folder: Path, *, like: str = "") -> Path:
    """``like``: ``xlm-r`` and ``t5`` drop extra spaces, each in its way, and rewrite characters; else neither."""
    made = Tokenizer(models.Unigram())
    split = [pre_tokenizers.WhitespaceSplit()] if like == "xlm-r" else []
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [*split, pre_tokenizers.Metaspace(prepend_scheme="always", split=True)]
    )
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(SENTENCES, trainer)
    made.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    _save(made, folder, {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"})
    edit(folder, _as_from_sentencepiece)
    steps = [_charsmap(folder)] if like else []
    if like == "t5":
        steps += [
            {"type": "Strip", "strip_left": False, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
        ]
    edit(
        folder, lambda content: content.update(normalizer={"type": "Sequence", "normalizers": steps} if like else None)
    )
    return folder


def _as_from_sentencepiece(content: dict[str, Any]) -> None:
    """Scores of real models were 32-bit floats once."""
    content["model"]["vocab"] = [[text, float(np.float32(score))] for text, score in content["model"]["vocab"]]


def _charsmap(folder: Path) -> dict[str, Any]:
    other = sentencepiece_model(folder / "charsmap", "unigram")
    compiled = spm.read(other / "tokenizer.model").charsmap
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(compiled).decode()}


def sentencepiece_model(folder: Path, kind: str, **options: Any) -> Path:
    """A checkpoint with nothing but a ``tokenizer.model``; ``kind``: ``bpe`` or ``unigram``."""
    from sentencepiece import SentencePieceTrainer

    out = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES if kind == "unigram" else LINES),
        model_writer=out,
        model_type=kind,
        vocab_size=800,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    return folder


def fairseq_model(folder: Path) -> Path:
    """XLM-RoBERTa's: its ids are not those of the file."""
    (sentencepiece_model(folder, "unigram") / "tokenizer.model").rename(folder / "sentencepiece.bpe.model")
    settings = {"tokenizer_class": "XLMRobertaTokenizer", "mask_token": "<mask>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def edit(folder: Path, change: Any) -> None:
    """Apply ``change`` to the content of tokenizer.json."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def vocabulary(folder: Path, vocab_size: int | None = None, config: dict[str, Any] | None = None) -> Vocabulary:
    """As the converter reads it; one embedding row per token unless ``vocab_size`` says otherwise."""
    return tokenizer.read(folder, config or {}, vocab_size or size(folder))


def size(folder: Path) -> int:
    if document := tokenizer.document(folder):
        return Tokenizer.from_str(document).get_vocab_size()
    file = tokenizer.sentencepiece_file(folder)
    assert file is not None
    return len(spm.read(file).pieces) + 2 * tokenizer.is_fairseq(folder)


def vocabulary_gguf(folder: Path, out: Path, **changes: Value) -> Path:
    """A GGUF without weights: the vocabulary of ``folder``, with ``changes`` to its metadata."""
    made = vocabulary(folder)
    assert not [item for item in made.items if item.verdict == "fail"], made.items
    gguf.write(out, {**MODEL, **made.metadata, **changes}, [])
    return out


def _train(made: Tokenizer, trainer: Any) -> None:
    made.train_from_iterator(LINES, trainer)


def _save(made: Tokenizer, folder: Path, config: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
