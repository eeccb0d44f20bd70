"""The checkpoint's own tokenizer, by its own library: what ours is held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..convert import legacy, spm, tokenizer, tokenizerjson
from ..convert.errors import BadCheckpoint
from .embedded import Encoding

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Encode = Callable[[str, str | None, bool], Encoding]
"""A text, a second one or None, and whether the tokenizer adds its special tokens."""


@dataclass(frozen=True, slots=True)
class Truth:
    """encode: finds special tokens in a text. plain: takes them for characters. Where it cannot find any
    (``parses_special``), the two are the same, and there are no pairs and offsets. unspecial: added tokens that are
    found in plain text, too; llama.cpp decides for some of them that they are special."""

    encode: Encode
    plain: Encode
    parses_special: bool
    unspecial: tuple[str, ...] = ()


def truth(checkpoint: Path) -> Truth:
    """From the files themselves, not through transformers, which builds some tokenizers from its own code instead; only
    what was never written to a tokenizer.json is built so.

    Raises:
        BadCheckpoint: there is no tokenizer, or its library cannot read it.
    """
    if (checkpoint / tokenizerjson.FILE).is_file():
        return _fast((checkpoint / tokenizerjson.FILE).read_text(encoding="utf-8"))
    file = tokenizer.sentencepiece_file(checkpoint)
    if file is not None:
        return _from_sentencepiece(checkpoint, file)
    if not list(legacy.files(checkpoint)):
        raise BadCheckpoint(f"{checkpoint} has no tokenizer")
    return _fast(_built_by_transformers(checkpoint))


def _fast(document: str) -> Truth:
    finding, plain = _loaded(document), _loaded(document)
    plain.encode_special_tokens = True
    added = finding.get_added_tokens_decoder().values()
    return Truth(
        lambda text, pair, add_special: _encoding(finding, text, pair, add_special),
        lambda text, pair, add_special: _encoding(plain, text, pair, add_special),
        parses_special=True,
        unspecial=tuple(token.content for token in added if not token.special),
    )


def _loaded(document: str) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        made = Tokenizer.from_str(document)
    except Exception as error:  # the library raises nothing narrower
        raise BadCheckpoint(f"tokenizers cannot read the tokenizer.json: {error}") from error
    made.no_truncation()
    made.no_padding()
    return made


def _encoding(made: Tokenizer, text: str, pair: str | None, add_special: bool) -> Encoding:
    found = made.encode(text, pair, add_special_tokens=add_special)
    return Encoding(tuple(found.ids), tuple(found.type_ids), tuple(found.sequence_ids), tuple(found.offsets))


def _built_by_transformers(checkpoint: Path) -> str:
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(str(checkpoint))
    return str(made.backend_tokenizer.to_str())


def _from_sentencepiece(checkpoint: Path, file: Path) -> Truth:
    """sentencepiece itself adds nothing; what is put around a text is a setting of the checkpoint."""
    from sentencepiece import SentencePieceProcessor

    made = SentencePieceProcessor(model_file=str(file))
    before, after = tokenizer.around(checkpoint)
    moved = tokenizer.is_fairseq(checkpoint)

    def encode(text: str, pair: str | None, add_special: bool) -> Encoding:
        ids = tuple(spm.fairseq_id(token_id) if moved else token_id for token_id in made.encode(text))
        ids = (*before, *ids, *after) if add_special else ids
        return Encoding(ids, (0,) * len(ids), (), ())

    return Truth(encode, encode, parses_special=False)
