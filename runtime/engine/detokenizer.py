"""Token bytes to text, as they come: whole characters only, and nothing that a stop string may still take back."""

from __future__ import annotations

from collections.abc import Sequence
from encodings.utf_8 import IncrementalDecoder


class Detokenizer:
    """Feed the bytes of each token; get the text that is certain by now.

    A character split over tokens is held until it is whole, bytes that can never become one turn into U+FFFD, and an
    unfinished character at the very end is dropped. Text that begins a stop string is held until it does not.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = IncrementalDecoder("replace")
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def feed(self, piece: bytes) -> str:
        """Text that became certain with ``piece``; after a stop string (``stopped``) there is no more."""
        if not self._stop and not self._decoder.buffer:
            try:
                return piece.decode()
            except UnicodeDecodeError:
                pass  # part of a character
        if self.stopped:
            return ""
        self._held += self._decoder.decode(piece)
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        certain = len(self._held) - self._undecided()
        text, self._held = self._held[:certain], self._held[certain:]
        return text

    def finish(self) -> str:
        """Text that was held back and is now certain."""
        text, self._held = self._held, ""
        return text

    def _undecided(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0
