"""The door to llama.cpp: its C API as llama-cpp-python binds it, without the rest of that package.

What the package imports by itself is its own high-level API, with numpy, Jinja and more: 160 ms of CPU and 23 MB that
nothing here needs.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any

PACKAGE = "llama_cpp"
_lock = threading.RLock()


def binding(module: str) -> Any:
    """The module ``llama_cpp.MODULE``. Whoever imports the package itself later gets the whole of it."""
    name = f"{PACKAGE}.{module}"
    with _lock:
        spec = None if PACKAGE in sys.modules else importlib.util.find_spec(PACKAGE)
        if spec is None or spec.submodule_search_locations is None:
            return importlib.import_module(name)
        stub = ModuleType(PACKAGE)
        stub.__path__ = list(spec.submodule_search_locations)
        sys.modules[PACKAGE] = stub
        try:
            return importlib.import_module(name)
        finally:
            del sys.modules[PACKAGE]
