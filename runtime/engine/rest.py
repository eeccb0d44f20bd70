"""An engine that nobody asks: after a while its cache is given back, and made anew by the next request.

Weights stay where they are, so that takes milliseconds. Conversations go to ordinary memory, where there is room for
them, as if others had taken their cells; those on disk are there already. Before that, what came into memory of a file
whose weights were laid out anew, which is the rows of its embeddings, is given back.
"""

from __future__ import annotations

import contextlib
import logging
import queue
from collections.abc import Callable, Iterator

from ...convert.errors import IngleError
from ..llama.context import Context
from ..llama.library import trim
from ..llama.model import NativeModel
from .drafts import Drafts
from .scheduler import Scheduler

log = logging.getLogger("ingle.engine")

Inbox = queue.SimpleQueue[Callable[[], None]]

PAUSE_S = 1.0
"""Of idleness before pages of the file are given back: who asks again at once finds them."""


class Rest:
    """Of one engine, whose thread alone calls this. ``after_s``: of idleness; 0 is never. ``resting``: the memory is
    given back."""

    def __init__(
        self, after_s: float, model: NativeModel, context: Context, scheduler: Scheduler, drafts: Drafts
    ) -> None:
        self._after_s = after_s
        self._model = model
        self._context = context
        self._scheduler = scheduler
        self._drafts = drafts
        self.resting = False

    def wait(self, inbox: Inbox) -> Callable[[], None]:
        """What is asked next of an engine that has nothing to do."""
        for pause_s, then in self._pauses():
            with contextlib.suppress(queue.Empty):
                return inbox.get(timeout=pause_s)
            then()
        return inbox.get()

    def _pauses(self) -> Iterator[tuple[float, Callable[[], None]]]:
        """How long it is waited, and what is done then."""
        if self.resting:
            return
        waited_s = 0.0
        if self._model.copied:
            waited_s = min(PAUSE_S, self._after_s or PAUSE_S)
            yield waited_s, self._model.give_back
        if self._after_s:
            yield self._after_s - waited_s, self._begin

    def end(self) -> IngleError | None:
        """Something is to be computed; what stands in the way."""
        try:
            self._context.open()
        except IngleError as error:
            return error
        self.resting = False
        return None

    def _begin(self) -> None:
        lost = self._scheduler.rest()
        self._drafts.rest()
        self._context.close()
        trim()
        self.resting = True
        log.info("resting: the cache is given back until the next request%s", _said_of(lost))


def look_around() -> None:
    """Something for the inbox, so that a waiting loop looks at its flags."""


def _said_of(lost: int) -> str:
    return f"; {lost:,} tokens of conversations had no room elsewhere and are forgotten" if lost else ""
