"""Conversations that left the KV cache for ordinary memory: a copy of their cells each, the least recently used go.

Cells that nobody computes with cost time in every step, for attention walks over them. A copy in host memory costs
none, and bringing one back is a copy, where computing it anew is a prefill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_CONVERSATIONS = 1000

State = NDArray[np.uint8]


@dataclass(frozen=True, eq=False, slots=True)
class Conversation:
    """``state`` is llama.cpp's copy of the cells of ``tokens`` (``llama_state_seq_get_data``)."""

    tokens: list[int]
    state: State


class Parked:
    """Copies of at most ``max_bytes`` together, and at most :data:`MAX_CONVERSATIONS`.

    whole: each is good for all of its tokens only, as the state of a recurrent model is.
    """

    def __init__(self, max_bytes: int, *, whole: bool = False) -> None:
        self._max_bytes = max_bytes
        self._whole = whole
        self._conversations: list[Conversation] = []  # the least recently used first
        self.bytes = 0

    def make_room(self, tokens: list[int], size_bytes: int) -> bool:
        """Before a copy is made: older ones go where it needs room, or where it says all that they said. False where it
        never fits."""
        if not 0 < size_bytes <= self._max_bytes:
            return False
        for old in list(self._conversations):
            if common_length(old.tokens, tokens) == len(old.tokens) and (not self._whole or old.tokens == tokens):
                self.forget(old)
        while self._conversations and self._is_full(size_bytes):
            self.forget(self._conversations[0])
        return True

    def put(self, tokens: list[int], state: State) -> None:
        """Keep a copy for which room was made."""
        self._conversations.append(Conversation(tokens, state))
        self.bytes += state.nbytes

    def longest(self, tokens: Sequence[int]) -> tuple[int, Conversation | None]:
        """How much of ``tokens`` a copy is good for, at most, and which."""
        found: tuple[int, Conversation | None] = (0, None)
        for conversation in self._conversations:
            common = common_length(conversation.tokens, tokens)
            if common > found[0] and (not self._whole or common == len(conversation.tokens)):
                found = (common, conversation)
        return found

    def use(self, conversation: Conversation) -> None:
        """It was of use just now."""
        self._conversations.remove(conversation)
        self._conversations.append(conversation)

    def forget(self, conversation: Conversation) -> None:
        """Let a copy go; one that went already may be named again."""
        if conversation in self._conversations:
            self._conversations.remove(conversation)
            self.bytes -= conversation.state.nbytes

    def _is_full(self, size_bytes: int) -> bool:
        return self.bytes + size_bytes > self._max_bytes or len(self._conversations) >= MAX_CONVERSATIONS

    def __len__(self) -> int:
        return len(self._conversations)


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common prefix, by halving: slices compare at the speed of C."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
