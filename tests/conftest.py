"""What every test stands on: an environment of its own, a free port, the example checkpoint as GGUF."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from ingle.runtime.engine.engine import EngineLike
    from ingle.runtime.options import LoadOptions

BARD = Path(__file__).parent.parent / "examples" / "bard"
FOREIGN_SETTINGS = ("INGLE_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "OPENAI_")

# The same examples in each run, so that a change is judged by what it changed; `make fuzz` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("search", derandomize=False, print_blob=True)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported (libraries read their settings then): no settings and no proxies of the
    person who runs the tests, homes and caches in a temporary folder."""
    home = tempfile.TemporaryDirectory(prefix="ingle-tests-")
    patch = pytest.MonkeyPatch()
    config.add_cleanup(home.cleanup)
    config.add_cleanup(patch.undo)
    for name in list(os.environ):
        if name.startswith(FOREIGN_SETTINGS) or name.lower().endswith("_proxy"):
            patch.delenv(name)
    patch.setenv("INGLE_HOME", str(Path(home.name, "ingle")))
    patch.setenv("HF_HOME", str(Path(home.name, "huggingface")))
    patch.setenv("XDG_CONFIG_HOME", str(Path(home.name, "config")))
    patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    # A shell starts background work with SIGINT ignored, and children inherit that: what Ctrl-C does is under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def ingle_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of its own for each test."""
    home = tmp_path_factory.mktemp("home", numbered=True)
    monkeypatch.setenv("INGLE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def bard() -> Path:
    """The example checkpoint."""
    return BARD


@pytest.fixture(scope="session")
def bard_gguf(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The example checkpoint converted once per session, by dtype: ``f16`` and ``f32``."""
    from ingle.convert import convert

    folder = tmp_path_factory.mktemp("bard")
    paths = {dtype: folder / f"bard-{dtype}.gguf" for dtype in ("f16", "f32")}
    for dtype, path in paths.items():
        convert(BARD, path, dtype)
    return paths


@pytest.fixture(params=["thread", "process"])
def home(request: pytest.FixtureRequest) -> Callable[[Path, LoadOptions], EngineLike]:
    """Both homes of the engine: a test that takes it runs in each."""
    from ingle.runtime.engine.engine import Engine
    from ingle.runtime.engine.process import EngineProcess

    return Engine if request.param == "thread" else EngineProcess


@pytest.fixture
def engine(home: Callable[[Path, LoadOptions], EngineLike], bard_gguf: Mapping[str, Path]) -> Iterator[EngineLike]:
    """The example model at f32 in each home, with default options."""
    from ingle.runtime.options import LoadOptions

    engine = home(bard_gguf["f32"], LoadOptions())
    yield engine
    engine.close()


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
