"""Obtaining models from a hub of our own, in this process or in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fakehub
from fakehub import FakeHub, sha256
from faketools import Workmen
from ingle.runtime.store import build
from ingle.runtime.store.cache import Cache
from ingle.runtime.store.download import Library
from ingle.runtime.store.hub import Hub
from ingle.runtime.store.manifest import Entry
from ingle.runtime.store.stages import Importance
from ingle.runtime.store.store import Store

NAME = "org/tiny"
WEIGHTS = "model.safetensors"
BLOCKED = """
import sys
def refuse(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError(f"a socket was asked for: {event}")
sys.addaudithook(refuse)
"""

OBTAIN = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
import faketools
from ingle.runtime.store import build
from ingle.runtime.store.store import Store
print(build.obtain({NAME!r}, Store(), tools=faketools.Workmen().tools).name)
"""


class Puller:
    """Obtains models from the fake hub into a store and a cache of its own."""

    def __init__(self, hub: FakeHub, folder: Path, workmen: Workmen) -> None:
        self.hub, self.workmen = hub, workmen
        self.cache, self.store = Cache(folder / "hub"), Store(folder / "ingle")
        self.token: str | None = None
        self.tools = workmen.tools
        self.progress: list[tuple[str, int, int]] = []

    def __call__(
        self, name: str = NAME, *, update: bool = False, offline: bool = False, importance: Importance | None = None
    ) -> Entry:
        client = None if offline else Hub(self.hub.endpoint, self.token, first_wait_s=0.001)
        return build.obtain(
            name,
            self.store,
            progress=lambda stage, done, total: self.progress.append((stage, done, total)),
            update=update,
            importance=importance,
            library=Library(self.cache, client),
            tools=self.tools,
        )

    def blob(self, content: bytes) -> Path:
        return self.cache.folder(NAME) / "blobs" / sha256(content)

    def files(self) -> set[str]:
        """Every file below cache and store, locks apart."""
        root = self.cache.root.parent
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}


@contextmanager
def puller(folder: Path) -> Iterator[Puller]:
    import huggingface_hub

    with fakehub.running() as hub:
        yield Puller(hub, folder, Workmen())
        huggingface_hub.close_session()


def run_python(code: str, environment: dict[str, str]) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_DISABLE_XET": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout
