"""The vocabulary of a model: text to token ids and back, as llama.cpp does it."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ...convert import gguf
from ...convert.errors import BadRequest, LoadFailed, UnsupportedModel
from ..embedded import EmbeddedTokenizer, Encoding
from ..normalize import needs_preparation, prepare
from .lease import Lease
from .library import library, native_log
from .metadata import integers

ANCHOR = "\n"
"""A text that merges with nothing behind it: what a tokenizer puts before a text goes before this."""


class Vocab:
    """A view of a loaded model's vocabulary. Calls are safe from several threads."""

    def __init__(self, handle: Any, metadata: Mapping[str, gguf.Value], model: Any = None) -> None:
        self._lib = library()
        self._handle = handle
        self.metadata = metadata
        self._model = model
        self._embedded = EmbeddedTokenizer.of(metadata)
        self.lease = Lease()
        self.size: int = self._lib.llama_vocab_n_tokens(handle)
        self._piece = functools.lru_cache(maxsize=None)(self._read_piece)

    @classmethod
    def open(cls, path: Path) -> Vocab:
        """Load the vocabulary alone, without weights.

        Raises:
            BadGGUF, LoadFailed: the file is not one that llama.cpp can read.
        """
        metadata = gguf.read(path).metadata
        lib = library()
        params = lib.llama_model_default_params()
        params.vocab_only = True
        with native_log() as lines:
            model = lib.llama_model_load_from_file(str(path).encode(), params)
        if not model:
            raise LoadFailed(f"{path}: llama.cpp refuses its vocabulary: {' '.join(lines[-2:])}")
        return cls(lib.llama_model_get_vocab(model), metadata, model)

    def forget(self, metadata: Mapping[str, gguf.Value]) -> None:
        """Go on with these metadata, which lack the long lists; what they said that is still needed is kept."""
        _ = self._longest_token
        self.metadata = metadata

    def close(self) -> None:
        """Free the model that :meth:`open` loaded."""
        self.lease.end()
        if self._model is not None:
            model, self._model = self._model, None
            self._lib.llama_model_free(model)

    def __enter__(self) -> Vocab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def handle(self) -> Any:
        return self._handle

    @property
    def embedded(self) -> bool:
        """Whether the file holds a tokenizer.json, which then tokenizes."""
        return self._embedded is not None

    @property
    def bos(self) -> int | None:
        """The token that the tokenizer puts before every text; None where it puts none."""
        return int(self._lib.llama_vocab_bos(self._handle)) if self._lib.llama_vocab_get_add_bos(self._handle) else None

    def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = False, continues: bool = False
    ) -> list[int]:
        """Token ids of ``text``; with the tokenizer's BOS/EOS if ``add_special``. As the tokenizer.json in the file has
        them, if there is one; else as llama.cpp has them, of the text that :func:`prepare` makes.

        continues: the text goes on from another, so a tokenizer that puts a space before a text puts none here.

        Raises:
            BadRequest: the text holds a lone surrogate, which has no UTF-8 form.
        """
        if continues and (self._embedded or self.metadata.get("tokenizer.ggml.model") == "llama"):
            before = self.tokenize(ANCHOR, add_special=False)
            tokens = self.tokenize(ANCHOR + text, add_special=False, parse_special=parse_special)
            if tokens[: len(before)] == before:
                return tokens[len(before) :]
        if self._embedded:
            return list(self._embedded.encode(text, add_special=add_special, parse_special=parse_special).ids)
        return self.native_tokens(text, add_special=add_special, parse_special=parse_special)

    def encode(self, text: str, pair: str | None = None, *, parse_special: bool = True) -> Encoding:
        """``text``, or two texts as one input, with segment ids and offsets, and all that the tokenizer adds.

        Raises:
            UnsupportedModel: the file holds no tokenizer.json. BadRequest: a lone surrogate.
        """
        if self._embedded is None:
            raise UnsupportedModel(
                "this file holds no tokenizer.json, which pairs of texts and offsets need",
                hint="convert the checkpoint again: models that read texts keep theirs",
            )
        return self._embedded.encode(text, pair, parse_special=parse_special)

    def native_tokens(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """What llama.cpp makes of ``text``, prepared, whether or not the file holds a tokenizer.json."""
        try:
            data = prepare(text, self.metadata, parse_special=parse_special).encode()
        except UnicodeEncodeError as error:
            raise BadRequest(f"the text has a lone surrogate at character {error.start}", param="prompt") from error
        with self.lease:
            return self._tokenize(data, add_special, parse_special)

    def fewest_tokens(self, text: str) -> int:
        """A lower bound of the tokens of ``text``: its bytes over those of the longest token; 0 where none is sure."""
        kind = self.metadata.get("tokenizer.ggml.model")
        if kind not in ("gpt2", "llama") or self._embedded or needs_preparation(self.metadata):
            return 0
        return len(text.encode("utf-8", "replace")) // self._longest_token

    @functools.cached_property
    def _longest_token(self) -> int:
        texts = self.metadata.get("tokenizer.ggml.tokens")
        return max((len(text.encode()) for text in texts), default=1) if isinstance(texts, list) else 1

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Text of ``tokens``; control tokens have none unless ``special``. Broken UTF-8 shows as U+FFFD."""
        return b"".join(self.piece(token, special=special) for token in tokens).decode("utf-8", "replace")

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that a token stands for."""
        if not 0 <= token < self.size:
            raise BadRequest(f"{token} is not a token id of this model (0 to {self.size - 1})", param="prompt")
        return self._piece(token, special)

    def is_end(self, token: int) -> bool:
        """Whether llama.cpp takes the token for an end of generation."""
        return bool(self._lib.llama_vocab_is_eog(self._handle, token))

    def end_tokens(self) -> tuple[int, ...]:
        """Every end-of-generation token: llama.cpp's, and the checkpoint's whole stop set if the file carries it."""
        kept = set(integers(self.metadata, "ingle.stop_token_ids"))
        return tuple(sorted(kept | {token for token in range(self.size) if self.is_end(token)}))

    def _tokenize(self, data: bytes, add_special: bool, parse_special: bool) -> list[int]:
        capacity = len(data) + 8
        while True:
            tokens = (ctypes.c_int32 * capacity)()
            count = self._lib.llama_tokenize(
                self._handle, data, len(data), tokens, capacity, add_special, parse_special
            )
            if count >= 0:
                return tokens[:count]
            capacity = -count

    def _read_piece(self, token: int, special: bool) -> bytes:
        capacity = 64
        with self.lease:
            while True:
                buffer = ctypes.create_string_buffer(capacity)
                count = self._lib.llama_token_to_piece(self._handle, token, buffer, capacity, 0, special)
                if count >= 0:
                    return buffer.raw[:count]
                capacity = -count
