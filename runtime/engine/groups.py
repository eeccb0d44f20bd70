"""Sets of adapters that requests ask for, by number: those of one set are computed together."""

from __future__ import annotations

from ..llama.context import Context
from ..llama.model import NativeModel


class Groups:
    """Of one engine. The first group has no adapters."""

    def __init__(self, model: NativeModel, context: Context) -> None:
        self._model, self._context = model, context
        self._numbers: dict[tuple[str, ...], int] = {(): 0}

    def of(self, names: tuple[str, ...] | None) -> tuple[int, tuple[str, ...]]:
        """The number of a set of adapters, and its names in one order; None is all of them."""
        adapters = tuple(sorted(set(self._model.adapters if names is None else names)))
        return self._numbers.setdefault(adapters, len(self._numbers)), adapters

    def use(self, number: int) -> None:
        """Compute with the adapters of a group from now on."""
        if len(self._numbers) > 1:
            names = next(names for names, group in self._numbers.items() if group == number)
            self._context.use([self._model.adapters[name] for name in names])
