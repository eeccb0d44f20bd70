"""An answer while it is being written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

Tell = Callable[[str], object]
"""Takes the next piece of a text."""

UNFINISHED = "\ufffd"  # of a character of which not all bytes are there


class Teller:
    """Tells the text of an answer by its tokens, as far as no further token can change it."""

    def __init__(self, decode: Callable[[list[int]], str], tell: Tell) -> None:
        self._decode, self._tell = decode, tell
        self._told = ""

    def hear(self, tokens: Sequence[int]) -> None:
        """``tokens``: all so far."""
        self._say(self._decode(list(tokens)).rstrip(UNFINISHED))

    def finish(self, text: str) -> None:
        """``text``: the whole, of which the rest is told."""
        self._say(text)

    def _say(self, text: str) -> None:
        if len(text) > len(self._told) and text.startswith(self._told):
            self._tell(text[len(self._told) :])
            self._told = text


class TextStream:
    """The pieces of a text as they are written. ``result`` is what the task gives, once they have ended. Whoever leaves
    early closes it, which gives the work up; a context manager does so.

    Raises:
        IngleError: what ended the work, from the iteration.
    """

    def __init__(self, work: Callable[[Tell], Any], give_up: Callable[[], None]) -> None:
        self._work, self._give_up = work, give_up
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._result: Any = None
        self._thread = threading.Thread(target=self._run, name="ingle-task-stream", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[str]:
        while (piece := self._pieces.get()) is not None:
            yield piece
        self._pieces.put(None)  # whoever asks again is at the end, too
        if self._error is not None:
            raise self._error

    @property
    def result(self) -> Any:
        """Waits for the end. Raises what ended the work."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result

    def close(self) -> None:
        """Give the work up, unless it is done."""
        if self._thread.is_alive():
            self._give_up()
            self._thread.join()

    def __enter__(self) -> TextStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            self._result = self._work(self._pieces.put)
        except BaseException as error:  # raised where the pieces are read
            self._error = error
        finally:
            self._pieces.put(None)
