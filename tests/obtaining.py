"""A process that obtains a model and prints each stage as it comes, so that a test can kill it in the middle of one.

    python obtaining.py NAME real|unproven|slow [WAIT_S]

``slow`` uses stand-ins that take their time over a small file; ``real`` converts, proves and quantizes; ``unproven``
leaves the proof out, which takes longer than the rest.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from faketools import Workmen, bytes_of
from ingle.convert.errors import IngleError
from ingle.convert.files import appearing
from ingle.convert.progress import Progress
from ingle.runtime.store.build import obtain
from ingle.runtime.store.checkpoint import Checkpoint
from ingle.runtime.store.stages import Importance, Prove, Tools
from ingle.runtime.store.store import Store

STEPS = 20
STEP_S = 0.02


class SlowWorkmen(Workmen):
    def convert(self, checkpoint: Checkpoint, out: Path, dtype: str, prove: Prove, progress: Progress) -> None:
        self._slowly("convert", checkpoint, out, prove, progress)

    def quantize(
        self, checkpoint: Checkpoint, out: Path, kind: str, prove: Prove, progress: Progress, _: Importance | None
    ) -> None:
        self._slowly("quantize", checkpoint, out, prove, progress)

    def _slowly(self, stage: str, checkpoint: Checkpoint, out: Path, prove: Prove, progress: Progress) -> None:
        weights = bytes_of(checkpoint, checkpoint.folder / "model.safetensors")
        with appearing(out) as partial:
            self._write(partial, b"GGUF" + weights, stage, progress)
            prove(partial, None)

    def _write(self, path: Path, content: bytes, stage: str, progress: Progress) -> None:
        step = len(content) // STEPS + 1
        with path.open("wb", buffering=0) as out:
            for start in range(0, len(content), step):
                progress(stage, start, len(content))
                out.write(content[start : start + step])
                time.sleep(STEP_S)


class Announcer:
    """Prints each stage once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, stage: str, done: int, total: int) -> None:
        stage = stage.split(" ")[0]
        if stage not in self._seen and (stage != "download" or done > 0):
            self._seen.add(stage)
            print(stage, flush=True)  # noqa: T201


def main() -> None:
    name, kind, *wait = sys.argv[1:]
    tools = {
        "real": Tools(),
        "unproven": replace(Tools(), prove=Workmen().prove),
        "slow": SlowWorkmen().tools,
    }[kind]
    store = Store(wait_s=float(wait[0]) if wait else 60.0)
    try:
        entry = obtain(name, store, progress=Announcer(), tools=tools)
    except IngleError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print("kept", entry.name, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
