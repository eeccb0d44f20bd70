"""What steps took when the engine last ran: kept per CPU, build and file, so that a fresh start knows it.

Without it the first prompt beside a running stream would be read in chunks of full size, whatever they take.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from ...convert.errors import StorageError
from ...convert.files import appearing
from ..llama.kernels import kept_path
from ..machine import cpu_name
from ..options import LoadOptions
from ..request import ModelInfo
from .pace import Pace

CHANGED = 1.25
"""By how much something must be slower or faster than what was kept, for keeping it anew."""


class Habit:
    """Of an engine with a file and a number of threads."""

    def __init__(self, info: ModelInfo, options: LoadOptions) -> None:
        path = Path(info.path)
        facts = path.stat() if path.is_file() else None
        file = (info.path, facts and (facts.st_size, facts.st_mtime_ns))
        way = (info.threads, info.threads_prefill, options.kv_type, info.flash_attention, info.repacked)
        self._place = kept_path("pace", repr((cpu_name(), way, file)))
        self._kept = _read(self._place)

    def pace(self, target_s: float) -> Pace:
        """A pace that begins with what was learned."""
        return Pace(target_s, *self._kept)

    def keep(self, pace: Pace) -> None:
        """Remember what was learned, if it is news."""
        if any(_differ(new, old) for new, old in zip(pace.learned, self._kept, strict=True)):
            self._kept = pace.learned
            with contextlib.suppress(StorageError, OSError), appearing(self._place) as partial:
                partial.write_text(json.dumps(self._kept))


def _differ(new: float, old: float) -> bool:
    return new > 0 and (old <= 0 or max(new / old, old / new) > CHANGED)


def _read(place: Path) -> tuple[float, float]:
    try:
        lone_s, row_s = json.loads(place.read_text())
        return max(0.0, float(lone_s)), max(0.0, float(row_s))
    except (OSError, ValueError, TypeError):
        return 0.0, 0.0
