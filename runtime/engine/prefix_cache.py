"""Which tokens lie in the KV cache, and who holds them: a radix tree over token ids. Pure Python.

Every node is a run of tokens that was computed once. A *slot* (llama.cpp's sequence id) that holds a node holds all
its ancestors too, so a slot is described by its last node, its *tail*. Slots of running requests and of finished ones
live in the same tree: a new request finds the longest run of its prompt that anybody holds and lets its own slot
share those cells, which copies nothing but marks.

    tokens of the tree        == cells that the tree occupies, each counted once
    a running slot's cells    == its path in the tree + its private cells, which the scheduler counts

Two slots that computed the same tokens side by side would hold them twice; :meth:`extend` notices and makes the later
one share the earlier one's cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .blocks import Blocks
from .parked import Conversation, Parked, State, common_length


class Memory(Protocol):
    """The KV cache as the tree sees it. Positions are half-open ranges; an ``end`` of -1 is the end."""

    def copy(self, source: int, target: int, start: int, end: int) -> None: ...
    def remove(self, slot: int, start: int = 0, end: int = -1) -> None: ...
    def holds(self, slot: int, length: int) -> bool: ...
    def size(self, slot: int) -> int: ...
    def save(self, slot: int) -> State | None: ...
    def restore(self, slot: int, state: State) -> bool: ...


@dataclass(eq=False, slots=True)
class Node:
    """A run of tokens below ``parent``. ``holders`` are the slots whose cells include it."""

    tokens: list[int]
    parent: Node | None
    children: dict[int, Node] = field(default_factory=dict)
    holders: set[int] = field(default_factory=set)

    def path(self) -> Iterator[Node]:
        """This node and its ancestors, without the root."""
        node: Node | None = self
        while node is not None and node.parent is not None:
            yield node
            node = node.parent


@dataclass(frozen=True, slots=True)
class Match:
    """``slot`` holds the first ``length`` tokens of what was looked for."""

    length: int = 0
    slot: int = -1


class PrefixCache:
    """The tree, the slots in it, and which of them are idle (their request is finished).

    max_idle_slots: idle conversations in the KV cache; max_parked_bytes: of copies of others in ordinary memory.
    blocks: copies on disk, if there are any. whole: a copy is good for all of its tokens only.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        max_idle_slots: int,
        max_parked_bytes: int = 0,
        blocks: Blocks | None = None,
        whole: bool = False,
    ) -> None:
        self._memory = memory
        self._max_idle_slots = max_idle_slots
        self._root = Node([], None)
        self._tails: dict[int, Node] = {}
        self._idle: dict[int, None] = {}  # in order of last use, oldest first
        self.parked = Parked(max_parked_bytes, whole=whole)
        self.blocks = blocks
        self.cells = 0
        self.woken_tokens = 0

    @property
    def idle_slots(self) -> list[int]:
        """Slots of finished requests, least recently used first."""
        return list(self._idle)

    def length(self, slot: int) -> int:
        """Tokens that a slot holds in the tree."""
        return sum(len(node.tokens) for node in self._tails[slot].path()) if slot in self._tails else 0

    @property
    def cells_in_use(self) -> int:
        """Cells of the tree that a running request holds."""
        return sum(len(node.tokens) for node in _descendants(self._root) if self._is_in_use(node))

    def length_in_use(self, tokens: Sequence[int]) -> int:
        """How much of ``tokens``, from their beginning, running requests hold."""
        return max((length for node, length in self._walk(tokens) if self._is_in_use(node)), default=0)

    def _is_in_use(self, node: Node) -> bool:
        return not node.holders <= self._idle.keys()

    def match(self, tokens: Sequence[int]) -> Match:
        """The longest prefix of ``tokens`` that some slot holds and the memory can still use."""
        best = Match()
        for node, length in self._walk(tokens):
            usable = next((slot for slot in node.holders if self._memory.holds(slot, length)), None)
            if usable is not None:
                best = Match(length, usable)
        return best

    def adopt(self, slot: int, tokens: Sequence[int], match: Match) -> None:
        """Enter ``slot`` with the first ``match.length`` of ``tokens``, sharing the cells of ``match.slot``."""
        node = self._root
        for node, _ in self._walk(tokens[: match.length], split=True):
            node.holders.add(slot)
        self._tails[slot] = node
        for holder in node.holders & self._idle.keys():
            if 2 * match.length >= self.length(holder):  # sharing the head of a template is no use of a conversation
                self._touch(holder)
        if match.length:
            self._memory.copy(match.slot, slot, 0, match.length)

    def extend(self, slot: int, start: int, tokens: Sequence[int]) -> int:
        """Enter ``tokens``, which ``slot`` has computed at ``start`` and after; returns how many now are in the tree.

        Fewer than all are entered only where another slot holds the same tokens in cells that cannot be shared.
        """
        done = 0
        while done < len(tokens):
            tail = self._tails[slot]
            twin = tail.children.get(tokens[done])
            if twin is None:
                self._append(slot, tail, tokens[done:])
                return len(tokens)
            common = common_length(twin.tokens, tokens[done:])
            owner = next(iter(twin.holders))
            if not self._memory.holds(owner, start + done + common):
                return done
            self._share(slot, self._split(twin, common), start + done, owner)
            done += common
        return done

    def retire(self, slot: int) -> list[int]:
        """The request of ``slot`` is finished: keep its tokens for later ones. Returns the slots that became free."""
        if self._tails[slot] is self._root:
            return [self.drop(slot)]
        self._idle[slot] = None
        freed = [self.drop(idle) for idle in self.idle_slots if len(self._tails[idle].holders) > 1]
        if self.blocks and slot in self._idle:
            self.blocks.note(slot, self._tokens(slot))
        return freed + self._trim()

    def park_unused(self) -> list[int]:
        """Move idle conversations that nobody running shares to ordinary memory; returns the freed slots.

        One of which most is shared with a running request stays: its cells are needed as they are.
        """
        freed = []
        for slot in self.idle_slots:
            unused = sum(len(node.tokens) for node in self._tails[slot].path() if not self._is_in_use(node))
            if 2 * unused >= self.length(slot) and self.keep_copy(slot):
                freed.append(self.drop(slot))
        return freed

    def leave(self) -> tuple[list[int], int]:
        """Move all idle conversations out of the KV cache; returns the freed slots, and how many tokens are lost."""
        lost = 0
        for slot in self.idle_slots:
            length, kept = self.length(slot), self.blocks.kept(slot, self._tokens(slot)) if self.blocks else 0
            lost += 0 if self.keep_copy(slot) else length - kept
        return [self.drop(slot) for slot in self.idle_slots], lost

    def wake(self, slot: int, conversation: Conversation, length: int) -> list[int]:
        """Bring the first ``length`` tokens of a parked conversation back, into ``slot``, as an idle one.

        There must be free cells for all its tokens. Returns the slots that became free: ``slot`` where it failed.
        """
        if 2 * length >= len(conversation.tokens):
            self.parked.forget(conversation)
        if not self._memory.restore(slot, conversation.state):
            self._memory.remove(slot)
            return [slot]
        self._memory.remove(slot, length)
        self._tails[slot] = self._root
        known = self.extend(slot, 0, conversation.tokens[:length])
        self._memory.remove(slot, known)
        self.woken_tokens += known
        if not known:
            return [self.drop(slot)]
        self._idle[slot] = None
        return self._trim()

    def fetch(self, slot: int, tokens: list[int]) -> list[int]:
        """Bring ``tokens`` back from disk into ``slot``, as an idle conversation; what the KV cache has is not read.

        There must be free cells for all of them. Returns the slots that became free: ``slot`` where it failed.
        """
        match = self.match(tokens)
        start = match.length - match.length % self.blocks.size if self.blocks else match.length
        self.adopt(slot, tokens, Match(start, match.slot))
        end = self.blocks.restore(slot, tokens, start) if self.blocks else start
        known = start + self.extend(slot, start, tokens[start:end])
        self._memory.remove(slot, known)
        if known == start:
            return [self.drop(slot)]
        self._idle[slot] = None
        return self._trim()

    def drop(self, slot: int) -> int:
        """Forget a slot and let its cells go; returns the slot."""
        if self.blocks:
            self.blocks.forget(slot)
        for node in list(self._tails.pop(slot).path()):
            node.holders.discard(slot)
            if not node.holders:
                self._unlink(node)
        self._idle.pop(slot, None)
        self._memory.remove(slot)
        return slot

    def evict(self, cells: int) -> list[int]:
        """Let idle slots go until ``cells`` more are free or none is left; returns the freed slots."""
        freed: list[int] = []
        target = self.cells - cells
        while self._idle and self.cells > target:
            freed.append(self._evict())
        return freed

    def check(self) -> None:
        """Raise RuntimeError, with both sides, if the tree contradicts itself."""
        nodes = list(_descendants(self._root))
        counted = sum(len(node.tokens) for node in nodes)
        if counted != self.cells:
            raise RuntimeError(f"the tree has {counted} tokens, but counts {self.cells}")
        for node in nodes:
            below = {slot for slot, tail in self._tails.items() if node in set(tail.path())}
            if node.holders != below or not below or not node.tokens:
                raise RuntimeError(f"a node of {len(node.tokens)} tokens is held by {node.holders}, not {below}")
            if node.parent is None or node.parent.children.get(node.tokens[0]) is not node:
                raise RuntimeError("a node is not where its first token says")
        if not self._idle.keys() <= self._tails.keys():
            raise RuntimeError(f"idle slots {set(self._idle)} are not all in the tree")

    def _walk(self, tokens: Sequence[int], *, split: bool = False) -> Iterator[tuple[Node, int]]:
        """Nodes along ``tokens`` and the length matched with each; the last may match in part, or is split there."""
        node, done = self._root, 0
        while done < len(tokens) and (child := node.children.get(tokens[done])) is not None:
            common = common_length(child.tokens, tokens[done:])
            partial = common < len(child.tokens)
            node = self._split(child, common) if split else child
            done += common
            yield node, done
            if partial:
                return

    def _append(self, slot: int, tail: Node, tokens: Sequence[int]) -> None:
        self.cells += len(tokens)
        if tail.parent is not None and tail.holders == {slot} and not tail.children:
            tail.tokens.extend(tokens)
            return
        leaf = Node(list(tokens), tail, holders={slot})
        tail.children[leaf.tokens[0]] = leaf
        self._tails[slot] = leaf

    def _share(self, slot: int, node: Node, start: int, owner: int) -> None:
        """Swap the slot's own cells of ``node`` for its owner's."""
        end = start + len(node.tokens)
        self._memory.remove(slot, start, end)
        self._memory.copy(owner, slot, start, end)
        node.holders.add(slot)
        self._tails[slot] = node

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node after ``at`` tokens; returns the upper part. The lower part stays the tail of its slots."""
        if at == len(node.tokens) or node.parent is None:
            return node
        upper = Node(node.tokens[:at], node.parent, holders=set(node.holders))
        node.parent.children[upper.tokens[0]] = upper
        node.tokens = node.tokens[at:]
        node.parent = upper
        upper.children[node.tokens[0]] = node
        return upper

    def _unlink(self, node: Node) -> None:
        self.cells -= len(node.tokens)
        if node.parent is not None:
            del node.parent.children[node.tokens[0]]

    def _trim(self) -> list[int]:
        """Let the oldest idle conversations go that are too many."""
        return [self._evict() for _ in range(len(self._idle) - self._max_idle_slots)]

    def _evict(self) -> int:
        oldest = next(iter(self._idle))
        self.keep_copy(oldest)
        return self.drop(oldest)

    def keep_copy(self, slot: int) -> bool:
        """Copy a slot's cells to ordinary memory; False where they do not fit there, or may not go there at all."""
        if self.blocks:
            self.blocks.save(slot)
        tokens = self._tokens(slot)
        state = self._memory.save(slot) if self.parked.make_room(tokens, self._memory.size(slot)) else None
        if state is not None:
            self.parked.put(tokens, state)
        return state is not None

    def keep_state(self, slot: int, tokens: list[int]) -> None:
        """Copy the state of a slot, after all of ``tokens``, where it cannot be shared or cut."""
        if self.parked.make_room(tokens, self._memory.size(slot)) and (state := self._memory.save(slot)) is not None:
            self.parked.put(tokens, state)

    def wake_state(self, slot: int, tokens: list[int]) -> int:
        """Fill an empty slot with the longest such state that ``tokens`` begin with; returns how many it has then."""
        length, conversation = self.parked.longest(tokens)
        if conversation is None:
            return 0
        if not self._memory.restore(slot, conversation.state):
            self._memory.remove(slot)
            self.parked.forget(conversation)
            return 0
        self.parked.use(conversation)
        self.woken_tokens += length
        return length

    def _tokens(self, slot: int) -> list[int]:
        runs = [node.tokens for node in self._tails[slot].path()]
        return [token for run in reversed(runs) for token in run]

    def _touch(self, slot: int) -> None:
        self._idle[slot] = self._idle.pop(slot)


def _descendants(root: Node) -> Iterator[Node]:
    waiting = list(root.children.values())
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.children.values())
