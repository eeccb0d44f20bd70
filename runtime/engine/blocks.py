"""The disk below the prefix cache: conversations in blocks of tokens, each known by all that stands before it.

A conversation that goes on adds blocks and writes none again, and two with the same beginning have the same first
blocks. Nothing is written in the way of an answer: blocks are copied when the engine has nothing else to do, or when
their conversation leaves the KV cache.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .parked import State
from .sequence import REALM_SHIFT

BLOCK_TOKENS = 128


class Cut(Protocol):
    """The KV cache as this tier sees it."""

    def save_range(self, slot: int, start: int, end: int) -> State | None: ...
    def restore_range(self, slot: int, start: int, end: int, state: State) -> bool: ...


class Disk(Protocol):
    """Where blocks are kept: ``disk_cache.DiskCache``."""

    def __contains__(self, name: bytes) -> bool: ...
    def put(self, name: bytes, state: State) -> bool: ...
    def get(self, name: bytes) -> State | None: ...


@dataclass(frozen=True, slots=True)
class Block:
    """``name`` is a digest of everything that its content depends on."""

    slot: int
    start: int
    end: int
    name: bytes


class Blocks:
    """Copies of finished conversations on ``disk``. ``roots``: by realm, a digest of the model and of who may read it;
    realms without one are not kept. ``size``: tokens of a block."""

    def __init__(self, disk: Disk, memory: Cut, roots: dict[int, bytes], size: int = BLOCK_TOKENS) -> None:
        self._disk = disk
        self._memory = memory
        self._roots = roots
        self.size = size
        self._unsaved: deque[Block] = deque()
        self.restored_tokens = 0

    def length(self, tokens: Sequence[int]) -> int:
        """How many of ``tokens``, from their beginning, are on disk."""
        return max((block.end for block in self._there(tokens)), default=0)

    def kept(self, slot: int, tokens: Sequence[int]) -> int:
        """How many of a slot's tokens are on disk, once all that is to be kept of it was copied."""
        self.save(slot)
        return self.length(tokens)

    def note(self, slot: int, tokens: Sequence[int]) -> None:
        """A slot's conversation rests: its blocks are to be kept."""
        self.forget(slot)
        self._unsaved += (block for block in self._all(slot, tokens) if block.name not in self._disk)

    def forget(self, slot: int) -> None:
        """The slot holds something else from now on."""
        self._unsaved = deque(block for block in self._unsaved if block.slot != slot)

    def save_one(self) -> bool:
        """Copy one block of those that are to be kept; False if there is none."""
        if not self._unsaved:
            return False
        self._save(self._unsaved.popleft())
        return True

    def save(self, slot: int) -> None:
        """Copy what is to be kept of a slot that is about to lose it."""
        blocks = [block for block in self._unsaved if block.slot == slot]
        self.forget(slot)
        for block in blocks:
            self._save(block)

    def restore(self, slot: int, tokens: Sequence[int], start: int) -> int:
        """Fill a slot that holds the first ``start`` of ``tokens``, a whole number of blocks; returns how many it holds
        then."""
        held = start
        for block in self._there(tokens):
            if block.end <= start:
                continue
            state = self._disk.get(block.name)
            if state is None or not self._memory.restore_range(slot, block.start, block.end, state):
                break
            held = block.end
        self.restored_tokens += held - start
        return held

    def _save(self, block: Block) -> None:
        if block.name not in self._disk:
            state = self._memory.save_range(block.slot, block.start, block.end)
            if state is not None:
                self._disk.put(block.name, state)

    def _there(self, tokens: Sequence[int]) -> Iterator[Block]:
        for block in self._all(-1, tokens):
            if block.name not in self._disk:
                return
            yield block

    def _all(self, slot: int, tokens: Sequence[int]) -> Iterator[Block]:
        realm = tokens[0] >> REALM_SHIFT if tokens else -1
        if (name := self._roots.get(realm)) is None:
            return
        for start in range(0, len(tokens) - self.size + 1, self.size):
            end = start + self.size
            text = ",".join(str(key - (realm << REALM_SHIFT)) for key in tokens[start:end])
            name = hashlib.sha256(name + text.encode()).digest()
            yield Block(slot, start, end, name)
