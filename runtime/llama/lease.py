"""Who is using a native object right now, so that nobody frees it under their hands."""

from __future__ import annotations

import threading
from types import TracebackType

from ...convert.errors import EngineClosed


class Lease:
    """``with lease:`` around each use, from any thread; :meth:`end` waits for those that run and refuses later ones."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._uses = 0
        self._ended = False

    def __enter__(self) -> None:
        with self._changed:
            if self._ended:
                raise EngineClosed("the model is unloaded")
            self._uses += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._uses -= 1
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.wait_for(lambda: self._uses == 0)
