"""The tokenizer.json that a file holds: ids, segment ids and offsets as the checkpoint's own tokenizer has them.

llama.cpp's tokenizer knows no pairs of texts, no offsets, and cuts some text differently. Where the converter found
that to matter it kept the tokenizer.json in the file (``tokenizer.huggingface.json``), and this reads it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..convert.errors import BadGGUF, BadRequest
from ..convert.gguf import Value
from ..convert.vocabulary import DOCUMENT_KEY, LIBRARY, LIBRARY_KEY

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text, or a pair of texts, as tokens; all tuples have one entry per token.

    ids: token ids. type_ids: segment ids, 0 and 1. sequences: which text a token comes from, 0 or 1; None for one that
    the tokenizer added. offsets: from which character of its text to which; (0, 0) for one that was added.
    """

    ids: tuple[int, ...]
    type_ids: tuple[int, ...]
    sequences: tuple[int | None, ...]
    offsets: tuple[tuple[int, int], ...]


class EmbeddedTokenizer:
    """A tokenizer.json, parsed when it is first used. Calls are safe from several threads."""

    def __init__(self, document: str) -> None:
        self._document = document
        self._lock = threading.Lock()
        self._loaded: dict[bool, Tokenizer] = {}

    @classmethod
    def of(cls, metadata: Mapping[str, Value]) -> EmbeddedTokenizer | None:
        """That of a file whose converter says that it is to be used; None for any other.

        Raises:
            BadGGUF: it is said to be there, and is not.
        """
        if metadata.get(LIBRARY_KEY) != LIBRARY:
            return None
        document = metadata.get(DOCUMENT_KEY)
        if not isinstance(document, str):
            raise BadGGUF(f"the file says that it holds a tokenizer.json, but has no {DOCUMENT_KEY}")
        return cls(document)

    def encode(
        self, text: str, pair: str | None = None, *, add_special: bool = True, parse_special: bool = True
    ) -> Encoding:
        """The tokens of ``text``, or of two texts as one input.

        add_special: with what the tokenizer puts around and between them. parse_special: special tokens in the text
        are those tokens, not characters.

        Raises:
            BadRequest: a text holds a lone surrogate.
        """
        for part in (text, pair or ""):
            try:
                part.encode()
            except UnicodeEncodeError as error:
                raise BadRequest(f"the text has a lone surrogate at character {error.start}", param="prompt") from error
        made = self._tokenizer(parse_special).encode(text, pair, add_special_tokens=add_special)
        return Encoding(tuple(made.ids), tuple(made.type_ids), tuple(made.sequence_ids), tuple(made.offsets))

    def _tokenizer(self, parse_special: bool) -> Tokenizer:
        with self._lock:
            if parse_special not in self._loaded:
                self._loaded[parse_special] = load(self._document, parse_special=parse_special)
            return self._loaded[parse_special]


def load(document: str, *, parse_special: bool = True) -> Tokenizer:
    """A tokenizer.json that was in a file. Raises :class:`BadGGUF` where the library cannot read it."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(document)
    except Exception as error:  # the library raises nothing narrower
        raise BadGGUF(f"the tokenizer.json in the file cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = not parse_special
    return tokenizer
