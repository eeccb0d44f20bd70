"""Child processes that run our own code: started the same way everywhere, and gone when their parent is.

They exist because bad input can abort native code, because a running native call cannot be interrupted, and because
native code prints.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def command(function: str, *arguments: str, watched: bool = False) -> list[str]:
    """What runs ``function`` (``package.module:name``) of ours in a child; ``arguments`` are its ``sys.argv[1:]``.

    ``watched``: it ends with its parent from before its imports on, see :func:`end_with_parent`.
    """
    module, name = function.split(":")
    watch = f"from {__name__} import end_with_parent; end_with_parent(); " if watched else ""
    return [sys.executable, "-P", "-c", f"{watch}from {module} import {name}; {name}()", *arguments]


def environment(**settings: str) -> dict[str, str]:
    """This process's environment, with which the child finds the modules that this one finds, and ``settings``."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **settings}


def end_with_parent() -> None:
    """In a child whose stdin is a pipe that its parent keeps open: end when the parent does, however suddenly."""
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def manner_of_death(exit_code: int) -> str:
    """``was ended by SIGSEGV`` or ``failed with exit code 3``."""
    return f"was ended by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"failed with exit code {exit_code}"


def _outlive_nobody() -> None:
    while os.read(0, 1):
        continue
    os._exit(1)
