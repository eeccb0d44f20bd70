"""Texts as a model reads them: token ids, segments, and where in the text each token lies.

The tokenizer is the checkpoint's own, which the converter keeps in the file. A file without it is read by llama.cpp's
tokenizer, which knows neither pairs nor offsets.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ...convert import segments as convert_segments
from ...convert.errors import BadRequest, ContextLengthExceeded, UnsupportedModel
from ...convert.gguf import Value
from ...convert.progress import Progress, silent
from ...convert.vocabulary import DOCUMENT_KEY
from ..embedded import load
from .work import heed

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

    from ..llama.vocab import Vocab

BATCH_CHARACTERS = 1 << 15
"""Some 10 ms for a tokenizer."""

LOWER_CASE = "ingle.lower_case"
Strategy = Literal["longest_first", "only_first", "only_second"]
Text = str | tuple[str, str]
"""One text, or a pair."""
Part = str | int
"""Of an input in tokens: an id, or a text to be read as it stands."""


@dataclass(frozen=True, slots=True)
class Length:
    """most: tokens of a text, those that the tokenizer adds included. truncate: cut a longer one and say how much was
    cut, instead of refusing it. strategy: what of a pair is cut."""

    most: int
    truncate: bool = False
    strategy: Strategy = "longest_first"


@dataclass(frozen=True)
class Encoded:
    """A text, or a pair, as the model reads it; one entry per token.

    segments: 0 or 1, as the model is told them. cut: how many tokens were left out. source: where each token is from,
    where the tokenizer is the checkpoint's own.
    """

    ids: Sequence[int]
    segments: Sequence[int]
    cut: int = 0
    source: Encoding | None = None

    @cached_property
    def offsets(self) -> list[tuple[int, int]]:
        """Start and end in characters of the text that the token is of."""
        return self.source.offsets if self.source else []

    @cached_property
    def texts(self) -> list[int | None]:
        """Which text that is; None for a token that the tokenizer put around it, which ``special`` marks, too."""
        return self.source.sequence_ids if self.source else []

    @cached_property
    def special(self) -> list[int]:
        return self.source.special_tokens_mask if self.source else []

    @cached_property
    def words(self) -> list[int | None]:
        """The number of the word in its text."""
        return self.source.word_ids if self.source else []


class TextTokenizer:
    """The tokenizer of one model. Safe to use from several threads.

    Raises:
        BadGGUF: the tokenizer in the file is broken.
    """

    def __init__(self, metadata: Mapping[str, Value], vocab: Vocab, segments: int) -> None:
        """``segments``: how many kinds of segments the model knows."""
        self._vocab = vocab
        self._lock = threading.Lock()  # the library fails where one thread cuts while another one reads or writes
        self._source = metadata.get(DOCUMENT_KEY)
        self._segmented = segments > 1 and bool(metadata.get(convert_segments.KEY, True))
        self._metadata = metadata

    @property
    def exact(self) -> bool:
        """Whether it knows pairs and offsets."""
        return isinstance(self._source, str)

    def encode(self, text: Text, length: Length) -> Encoded:
        """A text or a pair with the tokens that belong around it.

        Raises:
            ContextLengthExceeded: it is too long, and is not to be cut. BadRequest: it has no tokens at all, or half a
            surrogate pair. UnsupportedModel: a pair, and the file does not have its tokenizer.
        """
        first, second = (text, None) if isinstance(text, str) else text
        return self._fitting(text, self._whole(first, second), length)

    def encode_all(self, texts: Sequence[Text], length: Length, progress: Progress = silent) -> list[Encoded]:
        """The same of several, on all cores; work that is given up meanwhile ends soon."""
        found: list[Encoded] = []
        while batch := _batch(texts, len(found)):
            heed(progress)
            found += self._encode_batch(batch, length)
        return found

    def _encode_batch(self, texts: Sequence[Text], length: Length) -> list[Encoded]:
        if not self.exact:
            return [self.encode(text, length) for text in texts]
        for text in texts:
            self._check(*([text] if isinstance(text, str) else text))
        with self._lock:
            found = self.tokenizer.encode_batch(list(texts))
        return [self._fitting(text, self._of(one), length) for text, one in zip(texts, found, strict=True)]

    def of_tokens(self, parts: Sequence[Part], length: Length) -> Encoded:
        """Token ids and the tokens of texts, one behind the other, with nothing put around them.

        Raises:
            BadRequest: an id is none of the vocabulary, or there are no tokens. ContextLengthExceeded: too many.
        """
        ids: list[int] = []
        for part in parts:
            if isinstance(part, int) and not 0 <= part < self._vocab.size:
                raise BadRequest(f"there is no token {part}: the vocabulary has {self._vocab.size}", param="input")
            ids += [part] if isinstance(part, int) else self.tokenize(part, add_special=False)
        if not ids:
            raise BadRequest("the input has no tokens", param="input")
        if len(ids) > length.most and not length.truncate:
            raise too_long(len(ids), length.most)
        kept = tuple(ids[: length.most])
        return Encoded(kept, (0,) * len(kept), cut=len(ids) - len(kept))

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """The ids of a text. add_special: with the tokens that belong around it. parse_special: control tokens in it
        count as such. Raises :class:`BadRequest` for half a surrogate pair."""
        self._check(text)
        text = text.lower() if self._metadata.get(LOWER_CASE) is True else text
        if not self.exact:
            return self._vocab.tokenize(text, add_special=add_special, parse_special=parse_special)
        with self._lock:
            self.tokenizer.encode_special_tokens = not parse_special
            try:
                return list(self.tokenizer.encode(text, add_special_tokens=add_special).ids)
            finally:
                self.tokenizer.encode_special_tokens = False

    def _fitting(self, text: Text, found: Encoded, length: Length) -> Encoded:
        if not found.ids:
            raise BadRequest("the text is empty, and this tokenizer adds nothing to it", param="input")
        if len(found.ids) <= length.most:
            return found
        if not length.truncate:
            raise too_long(len(found.ids), length.most)
        first, second = (text, None) if isinstance(text, str) else text
        return self._shortened(first, second, length, len(found.ids))

    def windows(self, first: str, second: str, most: int, stride: int) -> list[Encoded]:
        """A pair as often as it takes to read all of ``second`` in pieces that share ``stride`` tokens."""
        self._check(first, second)
        added = self.tokenizer.num_special_tokens_to_add(is_pair=True)
        question = len(self.plain(first))
        if question + added + stride >= most:
            raise ContextLengthExceeded(
                f"the question has {question} tokens and the stride {stride}, which leaves no room in {most}",
                hint="ask a shorter question, or choose a smaller stride or a longer length",
                param="input",
            )
        whole = self._truncating(first, second, Length(most, True, "only_second"), stride)
        return [self._of(window) for window in (whole, *whole.overflowing)]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's own.

        Raises:
            UnsupportedModel: the file does not have it. BadGGUF: it is broken.
        """
        if not isinstance(self._source, str):
            raise UnsupportedModel(
                "this file does not have its checkpoint's tokenizer, which pairs of texts and places in a text need",
                hint="convert the checkpoint with ingle; its folder must have a tokenizer.json",
            )
        return load(self._source)

    def plain(self, text: str) -> list[int]:
        """The ids of a text with nothing around it."""
        with self._lock:
            return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def spelled(self, token: int) -> str:
        """A token as it stands in the vocabulary."""
        return self.tokenizer.id_to_token(token) or ""

    def joined(self, tokens: list[str]) -> str:
        """What tokens of the vocabulary read as."""
        decoder: Any = self.tokenizer.decoder
        return str(decoder.decode(tokens)) if decoder is not None else " ".join(tokens)

    def decode(self, ids: list[int], *, special: bool = False) -> str:
        """The text of tokens; added ones show only if ``special``."""
        if self.exact:
            with self._lock:
                return self.tokenizer.decode(ids, skip_special_tokens=not special)
        return self._vocab.detokenize(ids, special=special)

    @property
    def has_subwords(self) -> bool:
        """Whether the vocabulary marks tokens that continue a word."""
        return bool(getattr(self.tokenizer.model, "continuing_subword_prefix", None))

    def special_id(self, role: str) -> int | None:
        """The id of ``mask``, ``pad``, ``unk`` (spelt ``unknown``) or another special token."""
        value = self._metadata.get(f"tokenizer.ggml.{role}_token_id")
        return None if value is None else int(str(value))

    def _whole(self, first: str, second: str | None) -> Encoded:
        self._check(first, second or "")
        if self.exact or second is not None:  # a pair without the tokenizer is refused where it is asked for
            with self._lock:
                return self._of(self.tokenizer.encode(first, second))
        ids = tuple(self._vocab.tokenize(first, add_special=True, parse_special=True))
        return Encoded(ids, (0,) * len(ids))

    def _shortened(self, first: str, second: str | None, length: Length, tokens: int) -> Encoded:
        if not self.exact:
            added = self._vocab.tokenize("", add_special=True)
            ids = self._vocab.tokenize(first, add_special=True, parse_special=True)
            end = bool(added) and ids[-1] == added[-1] and len(added) > 1
            kept = [*ids[: length.most - 1], ids[-1]] if end else ids[: length.most]
            return Encoded(tuple(kept), (0,) * len(kept), cut=tokens - len(kept))
        found = self._of(self._truncating(first, second, length, 0))
        return replace(found, cut=tokens - len(found.ids))

    def _truncating(self, first: str, second: str | None, length: Length, stride: int) -> Encoding:
        with self._lock:
            tokenizer = self.tokenizer
            if (added := tokenizer.num_special_tokens_to_add(is_pair=second is not None)) >= length.most:
                raise ContextLengthExceeded(
                    f"{length.most} tokens leave no room beside the {added} that the tokenizer adds",
                    hint="choose a larger max_length",
                    param="max_length",
                )
            tokenizer.enable_truncation(length.most, stride=stride, strategy=length.strategy)
            try:
                return tokenizer.encode(first, second)
            except Exception as error:
                raise ContextLengthExceeded(
                    f"the texts do not fit into {length.most} tokens, even cut: {error}",
                    hint="what must stay whole is too long",
                    param="input",
                ) from error
            finally:
                tokenizer.no_truncation()

    def _of(self, encoding: Encoding) -> Encoded:
        ids = encoding.ids
        return Encoded(ids, encoding.type_ids if self._segmented else [0] * len(ids), source=encoding)

    def _check(self, *texts: str) -> None:
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise BadRequest(f"the text has a lone surrogate at character {error.start}", param="input") from error


def _batch(texts: Sequence[Text], begin: int) -> Sequence[Text]:
    """The next texts to tokenize at once: some, and no more than take a moment."""
    end, characters = begin, 0
    while end < len(texts) and characters < BATCH_CHARACTERS:
        text = texts[end]
        characters += len(text) if isinstance(text, str) else sum(map(len, text))
        end += 1
    return texts[begin:end]


def too_long(tokens: int, most: int) -> ContextLengthExceeded:
    error = ContextLengthExceeded(
        f"the text has {tokens} tokens, and this model reads {most}",
        hint="split it into shorter texts, or ask for it to be cut (truncate); nothing is cut silently",
        param="input",
    )
    error.prompt_tokens, error.context_window = tokens, most
    return error
