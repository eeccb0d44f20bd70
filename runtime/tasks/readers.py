"""Several contexts that read side by side, each with a thread of its own.

Texts need nothing of each other, so a thread that reads some alone never waits, where threads that share a step meet at
a barrier after each of the hundreds of nodes of its graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..bert.layers import Layers
from ..llama.abort import AbortFlag
from ..llama.model import NativeModel
from ..llama.states import StatesContext
from .head import Array


@dataclass(frozen=True, slots=True)
class Step:
    """Texts to be read together: the tokens of each, and what is read in place of their embeddings, if anything."""

    texts: Sequence[Sequence[int]]
    inputs: Array | None = None


Read = Callable[[StatesContext, Step], Any]


class Readers:
    """``count`` contexts for steps of ``capacity`` tokens. Used by one thread at a time.

    Raises:
        LoadFailed: no memory for them.
    """

    def __init__(self, model: NativeModel, count: int, capacity: int, abort: AbortFlag, *, flash: bool) -> None:
        self.capacity = capacity
        self._contexts: list[StatesContext] = []
        self._threads = ThreadPoolExecutor(count, "ingle-reader")
        try:
            for _ in range(count):
                self._contexts.append(StatesContext(model, capacity, 1, abort, flash=flash))
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._contexts)

    def read(self, steps: Sequence[Step], then: Callable[[Array], Array]) -> list[list[Array]]:
        """What ``then`` makes of the states of each text of each step, of which there are as many as readers at most.

        Raises:
            EngineError: llama.cpp failed. Cancelled: the flag was set.
        """

        def one(context: StatesContext, step: Step) -> list[Array]:
            return [then(states) for states in context.states(step.texts, step.inputs)]

        pairs = zip(self._contexts, steps, strict=False)
        reading = [self._threads.submit(one, context, step) for context, step in pairs]
        return [each.result() for each in _ended(reading)]

    def close(self) -> None:
        """Free the contexts; the model stays loaded."""
        self._threads.shutdown()
        while self._contexts:
            self._contexts.pop().close()


class LayerReaders:
    """``count`` threads that read with compiled layers. Used by one thread at a time."""

    def __init__(self, layers: Layers, count: int) -> None:
        self._layers = layers
        self._count = count
        self._threads = ThreadPoolExecutor(count, "ingle-reader")

    def read(self, steps: Sequence[Step], then: Callable[[Array], Array]) -> list[list[Array]]:
        """What ``then`` makes of the states of each text of each step: one step is read by all threads together, of
        several each by whichever thread is free.

        Raises:
            Cancelled: the flag was set.
        """
        if len(steps) == 1:
            (step,) = steps
            states = self._layers.states(step.texts, step.inputs, self._count, self._threads)
            return [[then(each) for each in states]]
        reading = [self._threads.submit(self._alone, step, then) for step in steps]
        return [each.result() for each in _ended(reading)]

    def close(self) -> None:
        self._threads.shutdown()

    def _alone(self, step: Step, then: Callable[[Array], Array]) -> list[Array]:
        return [then(states) for states in self._layers.states(step.texts, step.inputs)]


def _ended(reading: list[Any]) -> list[Any]:
    """All of them, when none is at work any more: an error of one leaves the others' contexts in use."""
    for each in reading:
        each.exception()
    return reading
