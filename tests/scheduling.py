"""A model of the KV cache that knows every cell, and the scheduler over it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ingle.runtime.engine.blocks import Blocks
from ingle.runtime.engine.priority import rank
from ingle.runtime.engine.scheduler import Limits, Scheduler
from ingle.runtime.engine.sequence import Row, Sequence


@dataclass
class FakeMemory:
    """A unified KV cache: cells with a position, a token and the slots that share them."""

    capacity: int
    cells: list[tuple[int, int, set[int]]] = field(default_factory=list)
    most: int = 0

    def write(self, slot: int, start: int, tokens: list[int]) -> None:
        self.cells += [(start + offset, token, {slot}) for offset, token in enumerate(tokens)]
        self.most = max(self.most, len(self.cells))

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        for position, _, slots in self.cells:
            if source in slots and start <= position < end:
                slots.add(target)

    def remove(self, slot: int, start: int = 0, end: int = -1) -> None:
        for position, _, slots in self.cells:
            if position >= start and (end < 0 or position < end):
                slots.discard(slot)
        self.cells = [cell for cell in self.cells if cell[2]]

    def holds(self, slot: int, length: int) -> bool:
        return any(slot in slots for _, _, slots in self.cells)

    def size(self, slot: int) -> int:
        return 8 * sum(slot in slots for _, _, slots in self.cells)

    def save(self, slot: int) -> np.ndarray | None:
        return np.array(self.content(slot), np.int64).view(np.uint8)

    def restore(self, slot: int, state: np.ndarray) -> bool:
        assert not any(slot in slots for _, _, slots in self.cells), "the slot is not empty"
        self.write(slot, 0, state.view(np.int64).tolist())
        return True

    def save_range(self, slot: int, start: int, end: int) -> np.ndarray | None:
        return np.array(self.content(slot)[start:end], np.int64).view(np.uint8)

    def restore_range(self, slot: int, start: int, end: int, state: np.ndarray) -> bool:
        assert len(self.content(slot)) == start, "the range does not follow what is there"
        self.write(slot, start, state.view(np.int64).tolist())
        return len(self.content(slot)) == end

    def content(self, slot: int) -> list[int]:
        held = sorted((position, token) for position, token, slots in self.cells if slot in slots)
        assert [position for position, _ in held] == list(range(len(held))), "a hole or a double position"
        return [token for _, token in held]


class FakeDisk(dict[bytes, np.ndarray]):
    """Blocks by name. ``loses``: every seventh is gone when it is asked for."""

    def __init__(self, *, loses: bool = False) -> None:
        super().__init__()
        self.loses = loses

    def put(self, name: bytes, state: np.ndarray) -> bool:
        self[name] = state
        return True

    def get(self, name: bytes, _: object = None) -> np.ndarray | None:  # type: ignore[override]
        if self.loses and name[0] % 7 == 0:
            del self[name]
        return dict.get(self, name)


def compute(scheduler: Scheduler, memory: FakeMemory, rows: list[Row]) -> None:
    """What the engine does with a step, with tokens counted up instead of sampled."""
    for row in rows:
        sequence = row.sequence
        memory.write(sequence.slot, sequence.computed, sequence.keys(sequence.computed, sequence.computed + row.count))
    scheduler.advance(rows)
    for row in rows:
        if row.output:
            row.sequence.tokens.append(1000 + len(row.sequence.tokens) % 3)


def scheduler_of(
    cells: int = 200,
    *,
    slots: int = 6,
    parallel: int = 4,
    rows: int = 16,
    parked_bytes: int = 0,
    disk: FakeDisk | None = None,
    whole: bool = False,
) -> tuple[Scheduler, FakeMemory]:
    memory = FakeMemory(cells)
    blocks = Blocks(disk, memory, {realm: b"root %d" % realm for realm in range(3)}, 8) if disk is not None else None
    limits = Limits(cells, slots, parallel, rows, parked_bytes)
    return Scheduler(limits, memory, share=not whole, blocks=blocks, whole=whole), memory


def sequence(tokens: list[int], group: int = 0, priority: str = "normal") -> Sequence:
    return Sequence(list(tokens), len(tokens), group=group, rank=rank(priority), realm=group)


def run(scheduler: Scheduler, memory: FakeMemory, answer: int) -> int:
    """Run until everybody has ``answer`` tokens; returns the rows computed."""
    computed = 0
    for _ in range(10_000):
        rows = scheduler.schedule()
        if not rows:
            return computed
        computed += sum(row.count for row in rows)
        compute(scheduler, memory, rows)
        for one in list(scheduler.running):
            if len(one.tokens) - one.num_prompt >= answer:
                scheduler.finish(one)
        scheduler.check()
    raise AssertionError("the scheduler never came to an end")
