"""Constrained answers: which tokens may come next, by a grammar. The only door to llguidance."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import BadRequest, EngineError
from ..llama.vocab import Vocab
from ..request import Constraint

if TYPE_CHECKING:
    import llguidance

SPECIAL = b"\xff"
"""What llguidance expects before the text of a token that no grammar can spell."""


class Grammars:
    """Makes a :class:`Matcher` for each constrained answer. The table of tokens is built for the first one."""

    def __init__(self, vocab: Vocab, end_tokens: Sequence[int]) -> None:
        self._vocab = vocab
        self._end_tokens = tuple(end_tokens)
        self._lock = threading.Lock()
        self._tokenizer: llguidance.LLTokenizer | None = None

    def matcher(self, constraint: Constraint) -> Matcher:
        """A matcher at the beginning of an answer.

        Raises:
            BadRequest: the grammar cannot be compiled; ``param`` is the field it comes from.
        """
        import llguidance

        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = self._table()
        native = llguidance.LLMatcher(self._tokenizer, constraint.grammar, log_level=0)
        if native.is_error():
            raise BadRequest(
                f"{constraint.param} cannot be compiled: {reason(native.get_error())}", param=constraint.param
            )
        return Matcher(native, self._vocab.size, self._end_tokens)

    def _table(self) -> llguidance.LLTokenizer:
        import llguidance

        vocab = self._vocab
        ends = list(self._end_tokens) or [vocab.size - 1]
        table = _Table(vocab, ends[0], set(ends))
        return llguidance.LLTokenizer(llguidance.TokenizerWrapper(table), n_vocab=vocab.size, eos_token=ends)


class Matcher:
    """What one answer may still become."""

    def __init__(self, native: llguidance.LLMatcher, vocabulary: int, end_tokens: Sequence[int]) -> None:
        self._native = native
        self._bits = np.zeros(-(-vocabulary // 32), np.uint32)
        self._ends = np.array(end_tokens, np.int64)
        self._vocabulary = vocabulary

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Make every token that would break the grammar impossible, in place; the end, too, before it is complete.

        Raises:
            EngineError: the grammar has become too expensive, or leads nowhere.
        """
        if self._native.is_stopped() and not self._native.is_error():
            allowed = np.zeros(self._vocabulary, bool)
            allowed[self._ends] = True
        else:
            self._native.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
            self._check()
            allowed = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: self._vocabulary].view(bool)
            allowed[self._ends] = self._native.is_accepting()
        logits[~allowed] = -np.inf

    def forced(self) -> list[int]:
        """The tokens of the text that must come next, as the tokenizer writes it; none where there is a choice, and
        none that would be another token if more text followed.

        Raises:
            EngineError: as :meth:`mask`.
        """
        if self._native.is_stopped():
            return []
        tokens: list[int] = self._native.compute_ff_tokens()
        self._check()
        valid = self._native.validate_tokens(tokens) if tokens else 0
        return tokens[:valid]

    def accept(self, token: int) -> None:
        """``token`` was taken; it is one that :meth:`mask` allowed or that is forced, and no end."""
        self._native.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._native.is_error():
            raise EngineError(
                f"the constraint of the answer failed: {reason(self._native.get_error())}",
                hint="a simpler schema or grammar may do",
            )


class _Table:
    """The vocabulary as llguidance wants it."""

    def __init__(self, vocab: Vocab, end: int, special: set[int]) -> None:
        self._vocab = vocab
        self.eos_token_id = end
        self.bos_token_id = None
        self.tokens: list[bytes] = []
        for token in range(vocab.size):
            piece = vocab.piece(token)
            if not piece or token in special:
                special.add(token)
                piece = SPECIAL + vocab.piece(token, special=True)
            self.tokens.append(piece)
        self.special_token_ids = sorted(special)

    def __call__(self, text: Any) -> list[int]:
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        return self._vocab.tokenize(plain, add_special=False, parse_special=False)


def reason(message: str) -> str:
    """The first lines of what llguidance says, without its backtrace."""
    return " ".join(message.split("<state>")[0].split())[:400]
